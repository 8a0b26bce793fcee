// Starts the published Slack emulator (npm package emulate) on a free port, with what it lacks around it. What Slack does with a call is
// the emulator's; here is who may disturb a call (gate), what of Slack's rules it leaves out (rules), how events travel (events), and what
// happened (record). Ends when its input does, so that it never outlives who started it.
import { AsyncLocalStorage } from 'node:async_hooks'
import { subscribe } from 'node:diagnostics_channel'
import { readFileSync, readdirSync } from 'node:fs'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { createEmulator } from 'emulate'
import { Calls } from './calls.mjs'
import { Events } from './events.mjs'
import { Gate } from './gate.mjs'
import { Record } from './record.mjs'
import { Rules } from './rules.mjs'

const seed = JSON.parse(readFileSync(new URL('seed.json', import.meta.url), 'utf8'))
const { slackPlugin, getSlackStore } = await import(chunkWithSlack())

// Which connection a call came by, so that it can be cut: the emulator's server shows its handlers a request only.
const connections = new AsyncLocalStorage()
subscribe('http.server.request.start', ({ response }) => connections.enterWith(response))

const register = slackPlugin.register
slackPlugin.register = (app, store, webhooks, ...rest) => {
  register(app, store, webhooks, ...rest)
  const bot = seed.tokens.find(token => token.type === 'bot')
  const rules = new Rules(getSlackStore(store), bot)
  const record = new Record()
  const gate = new Gate()
  const events = new Events({ sign: body => webhooks.headerFactory({ body }), rules, record })
  webhooks.dispatch = async (type, action, payload) => events.happened(payload)
  const calls = new Calls({ slack: app.fetch, rules, record, gate, cut: () => connections.getStore().socket.destroy() })
  app.fetch = request => calls.answer(request)
  routes(app, { calls, events, gate, record, rules })
}

function routes(app, { calls, events, gate, record, rules }) {
  const take = (path, use) => app.post(`/_test/${path}`, async c => c.json((await use(await c.req.json())) ?? {}))
  const show = (path, give) => app.get(`/_test/${path}`, async c => c.json(await give(name => c.req.query(name))))
  take('request_url', app => events.connect(app))
  take('no_request_url', () => events.disconnect())
  take('faults', fault => gate.faults.push(fault))
  take('budgets', budgets => gate.allow(budgets))
  take('disturbances', disturbance => events.disturbances.push(disturbance))
  take('people', ({ user, ...traits }) => rules.people.set(user, traits))
  take('extension', extension => calls.extend(extension))
  take('responses/:id', body => record.responses.push(body))
  take('reset', () => [calls, events, gate, record, rules].forEach(part => part.reset()))
  show('calls', () => record.calls)
  show('changes', query => record.changedSince(Number(query('since'))))
  show('edits', query => record.edits(query('channel'), query('ts')))
  show('refused', () => gate.refused)
  show('responses', () => record.responses)
  show('deliveries', () => events.deliveries)
  show('delivered', () => events.delivered())
}

function chunkWithSlack() {
  const folder = dirname(fileURLToPath(import.meta.resolve('emulate')))
  const exportsSlack = name => name.endsWith('.js') && /\bslackPlugin\n};/.test(readFileSync(join(folder, name), 'utf8'))
  return pathToFileURL(join(folder, readdirSync(folder).find(exportsSlack))).href
}

// The emulator puts its address into upload and file links, and must know it before it listens.
function freePort() {
  return new Promise(resolve => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

const port = await freePort()
const url = `http://127.0.0.1:${port}`
await createEmulator({ service: 'slack', port, hostname: '127.0.0.1', baseUrl: url, seed: { slack: seed } })
console.log(`listening on ${url}`)
process.stdin.on('end', () => process.exit(0)).resume()
