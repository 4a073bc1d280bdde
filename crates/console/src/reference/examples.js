// Makes the examples for TypeScript and Python from the example for curl.

const list = (open, parts, close) => open + parts.join(', ') + close
const quoted = (text, quote) => quote + text.replaceAll('\\', '\\\\').replaceAll(quote, '\\' + quote) + quote

const typescript = (value) => {
  if (typeof value === 'string') return quoted(value, "'")
  if (Array.isArray(value)) return list('[', value.map(typescript), ']')
  if (!value || typeof value !== 'object') return String(value)
  const name = (name) => (/^\w+$/.test(name) ? name : `'${name}'`)
  const parts = Object.entries(value).map((entry) => `${name(entry[0])}: ${typescript(entry[1])}`)
  return parts.length ? list('{ ', parts, ' }') : '{}'
}

const python = (value) => {
  if (typeof value === 'string') return quoted(value, '"')
  if (Array.isArray(value)) return list('[', value.map(python), ']')
  if (value === null || value === true || value === false) return { null: 'None', true: 'True', false: 'False' }[value]
  if (typeof value === 'number') return String(value)
  return list('{', Object.entries(value).map((entry) => `"${entry[0]}": ${python(entry[1])}`), '}')
}

// A model of the SDK for Python. Its times have the type of Python.
const model = (type, members) => {
  const time = (text) => `datetime(${text.split(/\D/, 4).map(Number).join(', ')}, tzinfo=timezone.utc)`
  const member = ([name, value]) => `${name}=${/^\d{4}-.*Z$/.test(value) ? time(value) : python(value)}`
  return list(`models.${type}(`, Object.entries(members).map(member), ')')
}

const pythonBody = (call, type, body) => {
  if (call === 'publish') return `${python(body.type)}, ${python(body.data)}`
  if (call === 'publishBatch') return list('[', body.map((event) => model(type, event)), ']')
  return model(type, body)
}

// Ids of the path, required parameters and the body of an example for curl.
const request = (template, curl) => {
  const [, path, query] = curl.match(/(?:API|v1})(\/[^\s"?]*)\??([^\s"]*)/)
  const json = curl.match(/ --json '(.*)'$/)?.[1].replaceAll("'\\''", "'")
  const typed = (text) => (/^\d+$/.test(text) ? Number(text) : text)
  const filled = path.split('/')
  const place = (part, at) => (part[0] === '{' ? [[part.slice(1, -1), typed(filled[at])]] : [])
  const pair = (text) => [text.split('=')[0], typed(text.split('=')[1])]
  return {
    path,
    ids: template.split('/').flatMap(place),
    query: query.split('&').filter(Boolean).map(pair),
    bodies: json ? [JSON.parse(json)] : [],
  }
}

// The heading is a method and a path. `type` is the type of the body, and `call` the method of the SDKs, if any.
const examples = (heading, curl, type, call) => {
  const [method, template] = heading.replace('HOST', '').split(' ')
  const { path, ids, query, bodies } = request(template, curl)
  if (call) {
    const values = [...ids, ...query].map((pair) => pair[1])
    const snake = call.replace(/[A-Z]/g, (letter) => '_' + letter.toLowerCase())
    return {
      // A list is read by `for await`.
      t: list((call.endsWith('.list') ? '' : 'await ') + `fanfare.${call}(`, [...values, ...bodies].map(typescript), ')'),
      p: list(`fanfare.${snake}(`, [...values.map(python), ...bodies.map((body) => pythonBody(call, type, body))], ')'),
    }
  }
  // Members of an object: a list without an entry is no member.
  const member = (name, entries) => (entries.length ? { [name]: Object.fromEntries(entries) } : {})
  const options = { ...member('params', Object.entries({ ...member('path', ids), ...member('query', query) })) }
  if (bodies.length) options.body = bodies[0]
  const [before, begin] = heading.includes('HOST') ? ['', 'api[:-7] + '] : ['/api/v1', '']
  const keywords = Object.entries({ ...member('params', query), ...(bodies.length && { json: bodies[0] }) })
  const rest = keywords.map(([keyword, value]) => `${keyword}=${python(value)}`)
  return {
    t: list(`await ${method}(`, [`'${before}${template}'`, ...(Object.keys(options).length ? [typescript(options)] : [])], ')'),
    p: list(`http.${method.toLowerCase()}(`, [`${begin}"${path}"`, ...rest], ')'),
  }
}
