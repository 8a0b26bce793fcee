// Rules of Slack that the emulator leaves out and our tests stand on: membership, lengths, what messages and people look like.
import { randomUUID } from 'node:crypto'

const WRITES = ['chat.postMessage', 'chat.postEphemeral', 'chat.update']
const MOST_TEXT = 4000
const MOST_MARKDOWN = 12000
const MOST_BLOCKS = 50

export class Rules {
  constructor(slack, bot) {
    this.slack = slack
    this.bot = bot
    this.reset()
  }

  reset() {
    this.people = new Map() // user id -> what users.info says of a guest or a stranger
  }

  // Why Slack would not do this call, though the emulator would.
  refusal({ method, args, token }) {
    if (token !== this.bot.token || !WRITES.includes(method)) return null
    const channel = this.channel(args.channel)
    if (channel && !channel.is_archived && !this.hasBot(channel)) return 'not_in_channel'
    return tooLong(method, args)
  }

  // The arguments, with what Slack adds to messages of its own accord.
  completed({ method, args, token }) {
    if (args.is_private === '1') return { ...args, is_private: 'true' } // slack_sdk's word for true, which the emulator does not know here
    if (method !== 'chat.postMessage') return args
    if (token === this.bot.token) return { ...args, bot_id: this.bot.bot_id, app_id: this.bot.app_id }
    return { ...args, client_msg_id: randomUUID() }
  }

  // The emulator's answer as Slack gives it.
  seen({ method, args }, body) {
    if (!body.ok) return body
    if (method === 'users.info') return { ...body, user: { ...body.user, ...this.people.get(args.user) } }
    if (!['conversations.replies', 'conversations.history'].includes(method)) return body
    const all = body.messages.map(message => listed(message, ['true', '1'].includes(String(args.include_all_metadata))))
    return method === 'conversations.replies' ? page(body, all, args) : { ...body, messages: all }
  }

  channel(id) {
    return this.slack.channels.findOneBy('channel_id', id)
  }

  channelType(channel) {
    if (channel.is_im) return 'im'
    if (channel.is_mpim) return 'mpim'
    return channel.is_private ? 'group' : 'channel'
  }

  hasBot(channel) {
    return channel.members.includes(this.bot.user_id)
  }

  isBot(event) {
    return [event.user, event.message?.user, event.previous_message?.user].includes(this.bot.user_id)
  }
}

function tooLong(method, { text = '', blocks = [] }) {
  const all = typeof blocks === 'string' ? JSON.parse(blocks || '[]') : blocks
  const markdown = all.filter(block => block.type === 'markdown').reduce((sum, block) => sum + [...block.text].length, 0)
  if ([...text].length > MOST_TEXT) return 'msg_too_long'
  return all.length > MOST_BLOCKS || markdown > MOST_MARKDOWN ? 'invalid_blocks' : null
}

function listed({ metadata, ...message }, withMetadata) {
  const root = message.reply_count ? { thread_ts: message.ts } : {}
  return { ...message, ...root, ...(withMetadata && metadata ? { metadata } : {}) }
}

function page(body, all, { limit = 1000, cursor = '', oldest = '0' }) {
  const [root, ...replies] = all.filter((message, index) => index === 0 || message.ts > oldest)
  const from = Math.max(0, replies.findIndex(message => message.ts === cursor))
  const until = from + Math.max(1, Number(limit) - 1)
  const next = replies[until]?.ts ?? ''
  const messages = root ? [root, ...replies.slice(from, until)] : []
  return { ...body, messages, has_more: next !== '', response_metadata: { next_cursor: next } }
}
