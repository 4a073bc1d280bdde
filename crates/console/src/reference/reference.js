const at = (id) => document.getElementById(id)
const search = at('find')
const parts = [...document.querySelectorAll('main li')]
const groups = [...document.querySelectorAll('main>div:not(.bar)')]
const element = (name, ...content) => {
  const made = document.createElement(name)
  made.append(...content)
  return made
}
// A text with marks of code, and a text with links to types.
const marked = (text) => text.split('`').map((part, index) => (index % 2 ? element('b', part) : part))
const link = (name) => Object.assign(element('a', name), { href: '#' + name })
const linked = (text) => text.split(/([A-Z]\w+)/).map((part) => (part && at(part) ? link(part) : part))
// `name? type: description`, with a type or a description, with both or with neither. The description `see part` stands
// for the description of the same name in an earlier part.
const told = {}
const member = (line, part) => {
  const [, name, type = '', about = ''] = line.match(/^(\S+?)(?: ([^:]+))?(?:: (.*))?$/)
  const of = (part) => part + ' ' + name.replace('?', '')
  told[of(part)] = about.startsWith('see ') ? told[of(about.slice(4))] : about
  const kind = type ? [element('i', ...linked(type)), ' '] : []
  return [element('dt', name), element('dd', ...kind, ...marked(told[of(part)]))]
}
const members = (lines, part) => (lines[0] ? [element('dl', ...lines.flatMap((line) => member(line, part)))] : [])
// A part is a heading, paragraphs, an empty line, and lines of members. An operation ends with the method of the SDKs,
// if any, and the example for curl. The heading of a type is its name.
for (const part of parts) {
  const [head, tail = ''] = part.textContent.split('\n\n')
  const lines = tail.split('\n')
  const curl = lines.at(-1).startsWith('curl ') && lines.pop()
  const [heading, ...about] = curl ? head.split('\n') : [part.id, head.trim()]
  const call = curl && lines.at(-1).startsWith('SDK ') && lines.pop().slice(4)
  const { t, p } = curl && examples(heading, curl, tail.match(/^Body .*?([A-Z]\w+)/m)?.[1], call)
  part.replaceChildren(
    element('h3', heading),
    ...about.filter(Boolean).map((text) => element('p', text)),
    ...members(lines, part.id),
    ...(curl ? [element('c-', curl), element('t-', t), element('p-', p)] : []),
  )
}
for (const paragraph of document.querySelectorAll('main p')) {
  for (const node of [...paragraph.childNodes]) if (node.data) node.replaceWith(...marked(node.data))
}
const codes = document.querySelector('pre')
codes.replaceWith(...members(codes.textContent.trim().split('\n')))
const filter = () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean)
  for (const part of parts) {
    const text = `${part.id} ${part.textContent}`.toLowerCase()
    part.hidden = !words.every((word) => text.includes(word))
  }
  for (const group of groups) group.hidden = ![...group.querySelectorAll('li')].some((part) => !part.hidden)
  at('found').textContent = words.length ? parts.filter((part) => !part.hidden).length + ' found' : ''
}
for (const part of document.querySelectorAll('[hidden]')) part.hidden = false
search.addEventListener('input', filter)
addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.target.matches('input')) return
  event.preventDefault()
  search.focus()
})
addEventListener('click', ({ target }) => {
  const heading = target.closest('h3')
  if (heading) location.hash = heading.parentElement.id
})
const show = () => at(location.hash.slice(1))?.scrollIntoView()
addEventListener('hashchange', () => {
  search.value = ''
  filter()
  show()
})
show()
try {
  const kept = localStorage.getItem('language')
  if (kept) at(kept).checked = true
  for (const choice of document.getElementsByName('l')) {
    choice.addEventListener('change', () => localStorage.setItem('language', choice.id))
  }
} catch {}
