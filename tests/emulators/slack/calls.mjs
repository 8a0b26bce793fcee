// One Web API call, from the request to the answer: read, held up, refused, done by the emulator (or by who extends it), recorded.
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
const json = (body, status = 200, headers = {}) => Response.json(body, { status, headers })
const TOKEN_KINDS = { xoxb: 'bot', xoxp: 'user', xapp: 'app' }

export class Calls {
  constructor({ slack, rules, record, gate, cut }) {
    Object.assign(this, { slack, rules, record, gate, cut })
    this.reset()
  }

  reset() {
    this.extension = { url: '', methods: [] }
  }

  // The app's calls of `methods` are answered by `url`/<method>, which gets their arguments as JSON.
  extend(extension) {
    this.extension = extension
  }

  async answer(request) {
    const { pathname } = new URL(request.url)
    if (pathname.startsWith('/_test/inner/')) return this.#done(await read(request, '/_test/inner/'), { extended: true })
    if (!pathname.startsWith('/api/')) return this.slack(request)
    const call = await read(request, '/api/')
    const entry = this.record.begins(call)
    const fault = this.gate.fault(call)
    await sleep(fault.delay_ms ?? 0)
    if (fault.cut === 'before') return this.#cut(entry)
    const answer = this.gate.answer(call, fault) ?? (await this.#done(call, { extended: false }))
    this.record.ends(entry, answer.status, await answer.clone().json().catch(() => ({})))
    await sleep(fault.after_ms ?? 0)
    return fault.cut === 'after' ? this.#cut(entry) : answer
  }

  async #done(call, { extended }) {
    const refusal = extended ? null : this.rules.refusal(call)
    if (refusal) return json({ ok: false, error: refusal })
    const external = !extended && call.tokenKind !== 'user' && this.extension.methods.includes(call.method)
    const answer = external ? await this.#extended(call) : await this.slack(call.request(this.rules.completed(call)))
    if (!answer.headers.get('content-type')?.includes('json')) return answer
    const body = this.rules.seen(call, await answer.json())
    if (!external) this.record.changed(call, body)
    return json(body, answer.status)
  }

  #extended({ method, args, authorization }) {
    const headers = { authorization, 'content-type': 'application/json' }
    return fetch(`${this.extension.url}/${method}`, { method: 'POST', headers, body: JSON.stringify(args) })
  }

  #cut(entry) {
    entry.cut = true
    this.cut()
    return new Response()
  }
}

// Slack takes arguments by GET and POST, in the query and in the body; the emulator by POST in the body only.
async function read(request, prefix) {
  const url = new URL(request.url)
  const isJson = (request.headers.get('content-type') ?? '').includes('application/json')
  const text = await request.text()
  const sent = isJson ? JSON.parse(text || '{}') : Object.fromEntries(new URLSearchParams(text))
  const args = { ...Object.fromEntries(url.searchParams), ...sent }
  const authorization = request.headers.get('authorization') ?? ''
  const token = authorization.replace(/^Bearer /, '')
  const method = url.pathname.slice(prefix.length)
  const headers = { authorization, 'content-type': isJson ? 'application/json' : 'application/x-www-form-urlencoded' }
  const encoded = all => (isJson ? JSON.stringify(all) : new URLSearchParams(all).toString())
  return {
    method, args, authorization, token,
    tokenKind: TOKEN_KINDS[token.slice(0, 4)] ?? 'none',
    request: all => new Request(`${url.origin}/api/${method}`, { method: 'POST', headers, body: encoded(all) }),
  }
}
