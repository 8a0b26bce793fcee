// What stands before a call of the app's: faults that a test ordered, and budgets as Slack's rate limits. A refused call is not done.
export class Gate {
  constructor() {
    this.reset()
  }

  reset() {
    this.faults = [] // {method, times, channel?, ts?, delay_ms?, after_ms?, cut?, status?, body?, retry_after?}
    this.refused = {} // method -> how often its budget was spent
    this.allow({ 'chat.update': { calls: 50, seconds: 60 } })
  }

  // {method: {calls, seconds}}: at most so many within any so many seconds. An empty one turns the limits off.
  allow(budgets) {
    this.budgets = Object.fromEntries(Object.entries(budgets).map(([method, budget]) => [method, { ...budget, done: [] }]))
  }

  // The fault that this call uses up, or {}.
  fault({ method, args, tokenKind }) {
    if (tokenKind === 'user') return {}
    const at = fault => !fault.ts || [args.ts, args.thread_ts].includes(fault.ts)
    const hits = fault => fault.method === method && fault.times > 0 && (!fault.channel || fault.channel === args.channel) && at(fault)
    const fault = this.faults.find(hits)
    if (!fault) return {}
    fault.times -= 1
    return fault
  }

  // The answer that the fault or the spent budget gives instead of Slack's, or null.
  answer({ method, tokenKind }, fault) {
    if (fault.status) return refusal(fault.status, fault.body, fault.retry_after)
    const budget = tokenKind === 'user' ? undefined : this.budgets[method]
    if (!budget) return null
    const now = Date.now()
    budget.done = budget.done.filter(at => at > now - budget.seconds * 1000)
    if (budget.done.length < budget.calls) {
      budget.done.push(now)
      return null
    }
    this.refused[method] = (this.refused[method] ?? 0) + 1
    return refusal(429, undefined, wait(budget, now))
  }
}

// Slack says whole seconds. A window that a test has scaled down says parts of them.
function wait(budget, now) {
  const seconds = (budget.done[0] + budget.seconds * 1000 - now) / 1000
  return budget.seconds < 30 ? Math.max(0.01, Number(seconds.toFixed(2))) : Math.max(1, Math.ceil(seconds))
}

function refusal(status, body, retryAfter) {
  const error = status === 429 ? 'ratelimited' : 'internal_error'
  const headers = retryAfter ? { 'retry-after': String(retryAfter) } : {}
  return Response.json(body ?? { ok: false, error }, { status, headers })
}
