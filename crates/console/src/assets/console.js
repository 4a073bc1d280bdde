// Script of the pages. Every page works without the script: the script adds live content, shortcuts, copying and the
// browser's time zone. It keeps no content in the browser's storage.
'use strict'
{
  const page = document.documentElement
  const root = document.body.dataset.root || ''
  const all = (selector, within = document) => [...within.querySelectorAll(selector)]
  const by = id => document.getElementById(id)
  const say = text => { const said = by('said'); if (said) said.textContent = text }

  // Times in the browser's zone.
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone
  // Date and time in UTC or in the browser's zone.
  const parts = (date, isLocal) =>
    new Date(date - (isLocal ? date.getTimezoneOffset() * 60000 : 0)).toISOString().slice(0, 19).split('T')
  const inZone = (date, isLocal) => {
    const [day, time] = parts(date, isLocal)
    return day === parts(new Date(), isLocal)[0] ? time : `${day} ${time}`
  }
  const isLocal = () => page.dataset.time === 'local'
  const showTimes = within => {
    for (const time of all('time[datetime]', within)) {
      const shown = time.querySelector('b')
      const date = new Date(time.dateTime)
      if (shown) shown.textContent = inZone(date, isLocal())
      time.title = time.dateTime.replace('T', ' ').replace('Z', ' UTC')
    }
  }
  const zoneButton = by('zone')
  const showZone = () => { if (zoneButton) zoneButton.textContent = isLocal() ? zone : 'UTC' }
  const keep = () => {
    const scheme = /(?:^|; )fanfare-view=(\w+)/.exec(document.cookie)?.[1] || 'auto'
    const words = [scheme, isLocal() ? 'local' : 'utc', 'shortcuts' in page.dataset ? 'on' : 'off']
    const isFramed = root === '/portal' && location.protocol === 'https:'
    const site = isFramed ? 'Secure; SameSite=None; Partitioned' : 'SameSite=Lax'
    document.cookie = `fanfare-view=${words.join('.')}; Path=${root}; Max-Age=31536000; ${site}`
  }
  const turnZone = () => {
    if (isLocal()) delete page.dataset.time
    else page.dataset.time = 'local'
    keep()
    showZone()
    showTimes(document)
  }
  if (zoneButton) {
    zoneButton.hidden = false
    zoneButton.addEventListener('click', turnZone)
  }

  // Copying, also over plain http.
  const copy = async text => {
    try {
      await navigator.clipboard.writeText(text)
    } catch {
      const area = document.createElement('textarea')
      area.value = text
      area.className = 'hidden'
      document.body.append(area)
      area.select()
      document.execCommand('copy')
      area.remove()
    }
    say('Copied.')
  }
  const textOf = button => button.dataset.copy || by(button.dataset.copyOf)?.textContent || ''

  const ready = within => {
    for (const button of all('button[data-copy], button[data-copy-of]', within)) button.hidden = false
    showTimes(within)
  }
  document.addEventListener('click', event => {
    const button = event.target.closest('button[data-copy], button[data-copy-of]')
    if (button) copy(textOf(button))
    const choose = event.target.closest('button[data-choose]')
    if (choose) {
      const group = choose.closest('fieldset')
      for (const box of all('input[type=checkbox]', group)) box.checked = choose.dataset.choose === 'all'
      group.dispatchEvent(new Event('change', { bubbles: true }))
    }
  })

  // A request that is under way: its button says so, and a bar appears after 300 ms.
  const bar = document.querySelector('.progress')
  let sending = 0
  addEventListener('beforeunload', () => { sending = setTimeout(() => { bar?.removeAttribute('hidden') }, 300) })
  // The browser's back button shows a page as it was left.
  addEventListener('pageshow', () => {
    clearTimeout(sending)
    bar?.setAttribute('hidden', '')
    for (const form of all('form[data-sent]')) delete form.dataset.sent
    for (const button of all('button[data-was]')) {
      button.disabled = false
      button.textContent = button.dataset.was
      delete button.dataset.was
    }
  })
  document.addEventListener('submit', event => {
    const form = event.target
    if (form.dataset.sent) event.preventDefault()
    if (form.dataset.sent || form.method !== 'post') return
    form.dataset.sent = 'yes'
    const button = event.submitter
    // The button's own value must be sent: the button is disabled after the submission.
    setTimeout(() => {
      if (!button || event.defaultPrevented) return
      button.dataset.was = button.textContent
      button.disabled = true
      button.textContent = form.dataset.busy || 'Sending…'
    })
  })
  for (const form of all('form[data-send]')) form.requestSubmit()

  // A filter over the boxes of a fieldset.
  for (const field of all('input[data-filters]')) {
    field.hidden = false
    field.addEventListener('input', () => {
      const wanted = field.value.toLowerCase()
      for (const named of all('[data-name]', by(field.dataset.filters))) {
        named.hidden = !named.dataset.name.toLowerCase().includes(wanted)
      }
      if (wanted) for (const details of all('details:has([data-name])', by(field.dataset.filters))) details.open = true
    })
  }

  // A form that is checked when a field is left.
  for (const form of all('form[data-check]')) {
    form.addEventListener('change', async () => {
      const body = new URLSearchParams([...new FormData(form), ['intent', 'check']])
      try {
        const answer = await fetch(form.action, { method: 'POST', body, headers: { 'x-fanfare-live': 'none' } })
        if (answer.ok) merge(await answer.text())
      } catch {}
    })
  }

  // Live content: asks for the page's content at the pace of the server, and replaces the changed parts.
  const content = by('content')
  const liveButton = by('live')
  const LONGEST = 30
  const IDLE = 15 * 60 * 1000
  let pace = Number(document.body.dataset.live || 0)
  let isOn = pace > 0
  let known = 'none'
  let lastTouch = Date.now()
  let timer = 0
  let waiting = []
  for (const kind of ['click', 'keydown', 'pointermove']) {
    addEventListener(kind, () => { lastTouch = Date.now() }, { passive: true })
  }
  const isBusy = part => part.contains(document.activeElement) && document.activeElement !== content
  const mark = part => {
    part.classList.add('changed')
    setTimeout(() => part.classList.remove('changed'), 2000)
  }
  const same = (a, b) => {
    const withoutTimes = part => {
      const copied = part.cloneNode(true)
      for (const time of all('time', copied)) time.textContent = ''
      return copied.innerHTML
    }
    return withoutTimes(a) === withoutTimes(b)
  }
  const replace = (old, fresh) => {
    if (isBusy(old)) return
    const isSame = same(old, fresh)
    ready(fresh)
    old.replaceWith(fresh)
    if (!isSame) mark(fresh)
  }
  const showNews = () => {
    for (const [body, row] of waiting) { body.prepend(row); mark(row) }
    waiting = []
    by('news')?.remove()
  }
  const tellNews = table => {
    if (!waiting.length) return
    let button = by('news')
    if (!button) {
      button = document.createElement('button')
      button.id = 'news'
      button.className = 'news'
      button.addEventListener('click', showNews)
      table.before(button)
    }
    button.textContent = `${waiting.length} new ↑`
  }
  const merge = html => {
    const fresh = new DOMParser().parseFromString(html, 'text/html')
    for (const part of all('[data-part]', fresh)) {
      const old = all('[data-part]', content).find(known => known.dataset.part === part.dataset.part)
      if (old) replace(old, document.importNode(part, true))
    }
    for (const body of all('tbody[data-rows]', fresh)) {
      const old = all('tbody[data-rows]', content).find(known => known.dataset.rows === body.dataset.rows)
      // The first rows: the page had a text in place of the table.
      if (!old) { if (!isBusy(content)) location.reload(); continue }
      const rows = all('tr[id]', body)
      const isNew = row => !by(row.id) && !waiting.some(([, other]) => other.id === row.id)
      const firstKnown = rows.findIndex(row => by(row.id))
      rows.forEach((row, index) => {
        const present = by(row.id)
        if (present) replace(present, document.importNode(row, true))
        else if (isNew(row) && (firstKnown < 0 || index < firstKnown)) waiting.push([old, document.importNode(row, true)])
      })
      if (!all('tr[id]', old).length) showNews()
      else tellNews(old.closest('.scroll') || old.closest('table'))
    }
  }
  const ask = async () => {
    try {
      const answer = await fetch(location.href, { headers: { 'x-fanfare-live': known } })
      if (answer.status === 401) { stop('The session has ended.'); tellParent({ fanfare: 'expired' }); return }
      if (answer.status === 200) {
        known = answer.headers.get('x-fanfare-content') || 'none'
        merge(await answer.text())
        pace = Number(document.body.dataset.live)
      } else {
        // Nothing is new. The clock of the browser may be wrong.
        const date = answer.status === 204 && answer.headers.get('date')
        if (date) for (const time of all('time[data-passing]')) time.dateTime = new Date(date).toISOString()
        showTimes(document)
        pace = Math.min(pace * 1.5, LONGEST)
      }
    } catch {
      pace = Math.min(pace * 2, LONGEST)
    }
    next()
  }
  const next = () => {
    clearTimeout(timer)
    if (!isOn || document.hidden) return
    if (Date.now() - lastTouch > IDLE) { stop('Live has ended after 15 minutes.'); return }
    timer = setTimeout(ask, pace * 1000)
  }
  const stop = text => { turnLive(false); say(text) }
  const turnLive = wanted => {
    isOn = wanted && Number(document.body.dataset.live || 0) > 0
    if (liveButton) liveButton.setAttribute('aria-pressed', isOn)
    lastTouch = Date.now()
    if (isOn) { pace = Number(document.body.dataset.live); next() } else clearTimeout(timer)
  }
  document.addEventListener('visibilitychange', () => {
    clearTimeout(timer)
    if (isOn && !document.hidden) ask()
  })
  if (liveButton) {
    liveButton.hidden = false
    liveButton.addEventListener('click', () => turnLive(!isOn))
  }

  // Shortcuts.
  const move = step => {
    const links = all('main tbody tr a[data-row]')
    const at = links.indexOf(document.activeElement)
    const wanted = links[at < 0 && step < 0 ? links.length - 1 : at + step]
    if (wanted) { wanted.focus(); wanted.scrollIntoView({ block: 'nearest' }) }
  }
  // The neighbour of a delivery in the list from which the visitor came. The next one begins the page behind the
  // delivery. The previous one is found from the beginning of the list, within some pages.
  const MAX_PAGES = 5
  const neighbour = async step => {
    const list = new URLSearchParams(location.search).get('list')
    if (list === null) return step < 0 ? history.back() : press('a[rel=next]')
    const query = new URLSearchParams(list)
    if (step > 0) query.set('before', location.pathname.split('/').pop())
    let address = `../deliveries?${query}`
    let newer
    for (let pages = 0; pages < MAX_PAGES; pages++) {
      const answer = await fetch(address)
      if (!answer.ok || answer.redirected) throw new Error(`status ${answer.status}`)
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html')
      const links = all('a[data-row]', page)
      const at = links.findIndex(link => link.pathname === location.pathname)
      const wanted = step > 0 ? links[0] : at > 0 ? links[at - 1] : at === 0 && newer
      if (wanted) { location.href = `${wanted.pathname}?list=${encodeURIComponent(list)}`; return }
      if (at === 0) return say(query.has('before') ? 'The page of the list begins here.' : 'The list begins here.')
      newer = links.at(-1) || newer
      address = page.querySelector('a[rel=next]')?.getAttribute('href')
      if (!address) return say(step > 0 ? 'The list ends here.' : 'The list does not have this delivery now.')
    }
    say(`No neighbour was found within ${MAX_PAGES} pages of the list.`)
  }
  let isLeading = false
  const lead = async step => {
    if (isLeading) return
    isLeading = true
    await neighbour(step).catch(() => say('The list cannot be read now: try again.'))
    isLeading = false
  }
  let awaitsPage = false
  const press = selector => document.querySelector(selector)?.click()
  const shortcuts = {
    '/': () => { by('q')?.focus(); by('q')?.select() },
    '?': () => by('help')?.showModal?.(),
    j: () => move(1),
    k: () => move(-1),
    '[': () => lead(-1),
    ']': () => lead(1),
    // The key leads to the button: Enter sends.
    r: () => document.querySelector('[data-resend]')?.focus(),
    l: () => turnLive(!isOn),
    u: turnZone,
    g: () => { awaitsPage = true; setTimeout(() => { awaitsPage = false }, 1500) },
  }
  document.addEventListener('keydown', event => {
    const isField = event.target.closest?.('input, textarea, select, dialog')
    if (isField || event.ctrlKey || event.metaKey || event.altKey || !('shortcuts' in page.dataset)) return
    if (awaitsPage) {
      awaitsPage = false
      const link = all('nav a[data-key]').find(known => known.dataset.key === event.key)
      if (link) { event.preventDefault(); link.click() }
      return
    }
    if (Object.hasOwn(shortcuts, event.key)) { event.preventDefault(); shortcuts[event.key]() }
  })

  // A page in a frame tells its parent height, address and end. The page lists the permitted parents.
  const tellParent = message => {
    if (parent === window) return
    for (const origin of (document.body.dataset.parents || '').split(' ')) if (origin) parent.postMessage(message, origin)
  }
  if (parent !== window) {
    // Without the frame's height as the least height, a shorter page makes the frame shorter.
    document.body.classList.add('framed')
    new ResizeObserver(() => tellParent({ fanfare: 'height', height: document.body.offsetHeight })).observe(document.body)
    const told = document.body.dataset.tells
    if (told) tellParent({ fanfare: told })
    else if (by('said')) tellParent({ fanfare: 'path', path: location.pathname + location.search })
  }

  ready(document)
  showZone()
  by('error-summary')?.focus()
  next()
}
