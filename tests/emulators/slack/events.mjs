// Events on their way to the app: signed by the emulator, sent one after the other, sent again as Slack does, disturbed as a test orders.
import { randomUUID } from 'node:crypto'
import http from 'node:http'

const ATTEMPT_MS = 3000 // Slack's own

export class Events {
  constructor({ sign, rules, record }) {
    Object.assign(this, { sign, rules, record })
    this.waiting = []
    this.reset()
  }

  reset() {
    this.app = null // {url, events, retry_ms}
    this.last = Promise.resolve() // the attempt after which the next event starts
    this.deliveries = []
    this.disturbances = [] // {kind, times, event, late_ms?}
    this.held = []
    this.#pending(new Set())
  }

  // `events` are the types that the app subscribes to, `retry_ms` the pauses before each new attempt.
  // What is still under way to another URL goes here too.
  connect(app) {
    this.app = app
  }

  disconnect() {
    this.app = null
  }

  // An empty list as soon as no delivery and no retry is under way.
  async delivered() {
    if (this.underWay.size) await new Promise(resolve => this.waiting.push(resolve))
    return []
  }

  happened(payload) {
    const channel = this.rules.channel(payload.event.channel ?? payload.event.item?.channel)
    if (channel && !this.rules.hasBot(channel)) return
    const envelope = this.#envelope(payload, channel)
    this.#travels(envelope)
    if (this.#mentions(envelope.event, channel)) this.#travels(mention(envelope))
  }

  #envelope({ event, ...rest }, channel) {
    const { bot } = this.rules
    const person = this.rules.people.get(event.user)
    const team = person?.team_id ?? rest.team_id
    const abroad = team === rest.team_id ? {} : { user_team: team, source_team: team }
    const typed = channel && event.type === 'message' ? { channel_type: this.rules.channelType(channel), team } : {}
    return {
      token: 'test-verification-token',
      ...rest,
      context_team_id: rest.team_id,
      api_app_id: bot.app_id,
      event: { ...event, event_ts: event.event_ts ?? event.ts, ...typed, ...abroad },
      authorizations: [{ enterprise_id: null, team_id: rest.team_id, user_id: bot.user_id, is_bot: true, is_enterprise_install: false }],
      is_ext_shared_channel: Object.keys(abroad).length > 0,
    }
  }

  #mentions(event, channel) {
    const spoken = event.type === 'message' && [undefined, 'file_share'].includes(event.subtype) && !this.rules.isBot(event)
    return spoken && !channel?.is_im && (event.text ?? '').includes(`<@${this.rules.bot.user_id}>`)
  }

  #travels(envelope) {
    if (this.rules.isBot(envelope.event)) return this.#send(envelope)
    const disturbance = this.#disturbance(envelope.event)
    if (disturbance?.kind === 'hold') return this.held.push(envelope)
    this.#disturbed(disturbance, envelope)
    this.held.splice(0).forEach(late => this.#send(late))
  }

  #disturbance(event) {
    const found = this.disturbances.find(({ event: name, times }) => times > 0 && name === (event.subtype ?? event.type))
    if (found) found.times -= 1
    return found
  }

  #disturbed(disturbance, envelope) {
    switch (disturbance?.kind) {
      case undefined:
        return this.#send(envelope)
      case 'repeat':
        this.#send(envelope)
        return this.#send(envelope, { retry: 1, reason: 'http_timeout' })
      case 'repeat_with_new_id':
        this.#send(envelope)
        return this.#send({ ...envelope, event_id: newId() })
      case 'delay':
        return this.#later(disturbance.late_ms, () => this.#send(envelope))
      case 'lose':
        return this.#send(envelope, { retry: 1, reason: 'http_timeout' })
    }
  }

  #send(envelope, attempt = { retry: 0 }) {
    if (!this.app?.events.includes(envelope.event.type)) return
    const period = this.underWay
    this.last = this.last.then(() => this.#attempt(period, envelope, attempt))
    this.#track(this.last)
  }

  // Only first attempts stand in line: a retry must not hold up what comes after it. After a reset nothing of before is sent.
  async #attempt(period, envelope, attempt) {
    if (!this.app || period !== this.underWay) return
    const { reason, stop } = await this.#post(this.app.url, envelope, attempt)
    const pause = this.app?.retry_ms[attempt.retry]
    if (reason === null || stop || pause === undefined) return
    this.#later(pause, () => this.#attempt(period, envelope, { retry: attempt.retry + 1, reason }))
  }

  async #post(url, envelope, { retry, reason }) {
    const body = JSON.stringify(envelope)
    const again = retry ? { 'x-slack-retry-num': String(retry), 'x-slack-retry-reason': reason } : {}
    const { status, failure, headers = {} } = await post(url, { ...this.sign(body), ...again }, body)
    const { event, event_id } = envelope
    const what = { event_id, event: event.subtype ?? event.type, channel: event.channel, ts: event.ts }
    this.deliveries.push({ ...what, url, retry, status, envelope })
    this.record.wake()
    return { reason: failure, stop: headers['x-slack-no-retry'] === '1' }
  }

  #later(ms, act) {
    const period = this.underWay
    this.#track(new Promise(resolve => setTimeout(() => resolve(period === this.underWay ? act() : undefined), ms)))
  }

  #track(promise) {
    const set = this.underWay
    set.add(promise)
    promise.finally(() => {
      set.delete(promise)
      if (set === this.underWay) this.#pending(set)
    })
  }

  #pending(set) {
    this.underWay = set
    if (!set.size) this.waiting.splice(0).forEach(wake => wake())
  }
}

// Slack sends two events for a message that mentions the app, with different ids.
function mention(envelope) {
  const { subtype, channel_type, hidden, ...event } = envelope.event
  return { ...envelope, event_id: newId(), event: { ...event, type: 'app_mention' } }
}

function newId() {
  return `Ev${randomUUID().replaceAll('-', '')}`
}

// {status, failure}: failure is null for 2xx, otherwise Slack's word for the retry reason.
function post(url, headers, body) {
  return new Promise(resolve => {
    const signal = AbortSignal.timeout(ATTEMPT_MS)
    const failed = () => resolve({ status: null, failure: signal.aborted ? 'http_timeout' : 'connection_failed' })
    const options = { method: 'POST', agent: false, signal, headers: { ...headers, 'content-length': Buffer.byteLength(body) } }
    const request = http.request(url, options, response => {
      const ok = response.statusCode >= 200 && response.statusCode < 300
      const done = () => resolve({ status: response.statusCode, failure: ok ? null : 'http_error', headers: response.headers })
      response.on('end', done).on('error', failed).resume()
    })
    request.on('error', failed).end(body)
  })
}
