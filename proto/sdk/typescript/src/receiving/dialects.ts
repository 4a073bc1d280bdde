/** The built-in dialects. A test compares the table with `crates/domain/dialects`. */
export type DialectName = 'cloudevents' | 'incenta' | 'incentable' | 'nudj' | 'ploints' | 'reward' | 'standard'

export interface DialectForm {
  /** The member of the body with the event type. */
  type: string
  /** The member of the body with the event's time. */
  time: string
  /** The member of the body with the event's id, if any. */
  id?: string
  /** The header of the dialect's own signature, in lower case, if any. */
  header?: string
  /** The text before the hexadecimal digits of the signature. */
  prefix?: string
}

export const DIALECTS: Record<DialectName, DialectForm> = {
  // The member `id` of a CloudEvent is the publisher's id, and not the event's.
  cloudevents: { type: 'type', time: 'time' },
  incenta: { type: 'event', time: 'timestamp', header: 'x-webhook-signature' },
  incentable: { id: 'id', type: 'type', time: 'created_at', header: 'x-incentable-signature' },
  nudj: { id: 'id', type: 'event', time: 'timestamp', header: 'x-nudj-signature', prefix: 'sha256=' },
  ploints: { id: 'id', type: 'type', time: 'timestamp', header: 'x-ploints-signature' },
  reward: { id: 'id', type: 'type', time: 'time' },
  standard: { type: 'type', time: 'timestamp' },
}
