/** A map from event types to types of `data`: an interface or a type alias. */
export type EventMap<Events> = { [Type in keyof Events]: unknown }

/** Events of any type, with unchecked data. */
export type AnyEvents = Record<string, unknown>
