// What happened: every call, every state that a message went through, and what came to response URLs.
const LONGEST_WAIT_MS = 2000
// Those who wait for a change look with these: that must not wake them.
const LOOKS = /^(auth|users|files)\.|^conversations\.(replies|history|info|list|members)$|^views\.generateTriggerId$/
const seconds = () => Date.now() / 1000

export class Record {
  constructor() {
    this.waiting = []
    this.count = 0
    this.reset()
  }

  reset() {
    this.calls = []
    this.responses = []
    this.states = new Map() // "channel ts" -> [{at, method, text, blocks}]
  }

  begins({ method, tokenKind, args }) {
    const ts = args.ts ?? args.timestamp ?? null
    const entry = { method, token: tokenKind, channel: args.channel ?? args.channel_id ?? null, ts, at: seconds(), status: null, args }
    this.calls.push(entry)
    return entry
  }

  ends(entry, status, body) {
    Object.assign(entry, { status, ended_at: seconds(), ok: body.ok === true, error: body.error ?? null, ts: entry.ts ?? body.ts ?? null })
    if (!LOOKS.test(entry.method)) this.wake()
  }

  changed({ method }, body) {
    if (body.ok && ['chat.postMessage', 'chat.update', 'chat.delete'].includes(method)) this.#state(method, body)
  }

  wake() {
    this.count += 1
    this.waiting.splice(0).forEach(wake => wake())
  }

  edits(channel, ts) {
    return this.states.get(`${channel} ${ts}`) ?? []
  }

  // Answers {count} as soon as something was done after `since`, or after a while.
  async changedSince(since) {
    if (this.count <= since) {
      await new Promise(resolve => {
        this.waiting.push(resolve)
        setTimeout(resolve, LONGEST_WAIT_MS)
      })
    }
    return { count: this.count }
  }

  #state(method, { channel, ts, message }) {
    const key = `${channel} ${ts}`
    const state = { at: seconds(), method, text: message?.text ?? null, blocks: message?.blocks ?? [] }
    this.states.set(key, [...(this.states.get(key) ?? []), state])
  }
}
