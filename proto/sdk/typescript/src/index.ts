export type { CallOptions, FanfareOptions, QueryOf } from './client/calls.js'
export type { AcceptedEvents } from './client/events.js'
export type { Attempts, Deliveries } from './client/deliveries.js'
export { FanfareError, type FanfareErrorCode, type FanfareErrorDetails } from './client/errors.js'
export type { EventTypes } from './client/event-types.js'
export { Fanfare } from './client/fanfare.js'
export type { Page, Pages } from './client/pages.js'
export type { NewEvent, PublishedOrNot, PublishOptions } from './client/publishing.js'
export type { Replays } from './client/replays.js'
export type * from './client/schemas.js'
export type { Webhooks } from './client/webhooks.js'
export type { AnyEvents, EventMap } from './event-map.js'
export type { components, operations, paths } from './openapi.js'
export type { DialectName } from './receiving/dialects.js'
export { digestOf } from './receiving/digest.js'
export type { EventHandler, HandlerOptions } from './receiving/handler.js'
export { KeySet, StaleKeysError, type KeySetOptions } from './receiving/key-set.js'
export { SignatureError, type ReceivedHeaders, type SignatureErrorReason } from './receiving/signature.js'
export {
  verify,
  verifyAsymmetric,
  type ReceivedEvent,
  type VerifyAsymmetricOptions,
  type VerifyOptions,
} from './receiving/verify.js'
