const search = document.getElementById('find')
const found = document.getElementById('found')
const parts = [...document.querySelectorAll('main li')]
const groups = [...document.querySelectorAll('main>div:not(.bar)')]
const filter = () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean)
  for (const part of parts) {
    const text = `${part.id} ${part.textContent}`.toLowerCase()
    part.hidden = !words.every((word) => text.includes(word))
  }
  for (const group of groups) group.hidden = ![...group.querySelectorAll('li')].some((part) => !part.hidden)
  found.textContent = words.length ? parts.filter((part) => !part.hidden).length + ' found' : ''
}
search.hidden = false
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
addEventListener('hashchange', () => {
  search.value = ''
  filter()
  document.getElementById(location.hash.slice(1))?.scrollIntoView()
})
try {
  const kept = localStorage.getItem('language')
  if (kept) document.getElementById(kept).checked = true
  for (const choice of document.getElementsByName('l')) {
    choice.addEventListener('change', () => localStorage.setItem('language', choice.id))
  }
} catch {}
