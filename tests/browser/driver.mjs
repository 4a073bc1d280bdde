// Drives Chromium for the tests of the pages. Reads lines of JSON from standard input, and prints a line for each:
// {"id": 1, "visit": 7, "do": "click", ...} is answered by {"id": 1, "value": ...}, or by {"id": 1, "error": "..."}.
// A visit is a browser context with a page of its own. `actions` lists the words of `do` and their members. A fault
// leaves a screenshot and a trace in the folder of FANFARE_SCREENS.
import fs from 'node:fs'
import path from 'node:path'
import readline from 'node:readline'
import { chromium } from 'playwright-core'
import { examine, wide } from './examine.mjs'
import * as fronts from './front.mjs'

const screens = process.env.FANFARE_SCREENS
const patience = Number(process.env.FANFARE_TEST_PATIENCE || 30) * 1000
fs.mkdirSync(screens, { recursive: true })

const starting = chromium.launch({
  executablePath: process.env.FANFARE_CHROMIUM || '/usr/bin/chromium',
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
    // The action `foreign` stands for a site of the internet, which may lead to this machine here.
    '--disable-features=LocalNetworkAccessChecks',
    '--host-resolver-rules=MAP *.test 127.0.0.1',
  ],
})

const visits = new Map()

// Begins a visit. `scripts` false turns JavaScript off; `slow` limits the network to 400 kbit/s and 400 ms.
async function begin({ visit, name, origin, cookie, scripts = true, slow = false, scheme = 'light', width = 1100, clock = false }) {
  const browser = await starting
  const context = await browser.newContext({
    baseURL: origin, javaScriptEnabled: scripts, colorScheme: scheme, viewport: { width, height: 800 }, reducedMotion: 'reduce',
    ignoreHTTPSErrors: true,
  })
  context.setDefaultTimeout(patience)
  if (cookie) {
    const [known, value] = cookie.split('=')
    await context.addCookies([{ name: known, value, url: origin }])
  }
  const page = await context.newPage()
  if (clock) await page.clock.install()
  if (slow) {
    const session = await context.newCDPSession(page)
    const bytes = 400 * 1000 / 8
    await session.send('Network.enable')
    await session.send('Network.emulateNetworkConditions', { offline: false, latency: 400, downloadThroughput: bytes, uploadThroughput: bytes })
  }
  const seen = { context, page, name, messages: [], requests: [], statuses: [] }
  page.on('console', message => { if (!isExpected(message)) seen.messages.push(`${message.type()}: ${message.text()}`) })
  page.on('pageerror', error => seen.messages.push(`error: ${error.message}`))
  page.on('request', request => seen.requests.push(new URL(request.url()).pathname))
  page.on('dialog', dialog => { seen.messages.push(`dialog: ${dialog.message()}`); dialog.dismiss() })
  await context.tracing.start({ snapshots: true })
  visits.set(visit, seen)
}

// Chromium reports each answer with an error's status, which scenarios cause on purpose.
function isExpected(message) {
  return message.text().startsWith('Failed to load resource: the server responded with a status of')
}

const button = (page, name) => page.getByRole('button', { name }).or(page.getByRole('link', { name })).first()

// The field of a label: of the content, else of the frame around, which has the search.
async function field(page, label) {
  const own = page.locator('main').getByLabel(label)
  return await own.count() ? own.first() : page.getByLabel(label).first()
}

// Runs an action that leads to another page, and waits for the page.
async function leading(page, act) {
  const arrived = page.waitForEvent('framenavigated', frame => frame === page.mainFrame())
  // A failed act is the fault to report, not the page that did not arrive.
  arrived.catch(() => {})
  await act()
  await arrived
  await page.waitForLoadState('load')
}

const actions = {
  // Opens an address. Returns the status.
  open: async ({ page }, { address }) => (await page.goto(address)).status(),
  // Clicks a button or link that leads to another page.
  follow: async ({ page }, { name }) => leading(page, () => button(page, name).click()),
  // Clicks a button or link that changes the page.
  click: async ({ page }, { name }) => button(page, name).click(),
  // Follows the first link of an element, or the element.
  choose: async ({ page }, { selector }) => leading(page, () => page.locator(selector).first().click()),
  fill: async ({ page }, { label, text }) => (await field(page, label)).fill(text),
  check: async ({ page }, { label }) => (await field(page, label)).check(),
  press: async ({ page }, { key }) => page.keyboard.press(key),
  type: async ({ page }, { text }) => page.keyboard.type(text),
  // Presses a key that leads to another page.
  enter: async ({ page }, { key }) => leading(page, () => page.keyboard.press(key)),
  // Presses Tab until the control of this name has the focus; `…` at the end stands for the rest of a name.
  tab_to: async ({ page }, { name }) => {
    for (let pressed = 0; pressed < 200; pressed++) {
      await page.keyboard.press('Tab')
      const focused = await page.evaluate(() => {
        const element = document.activeElement
        const name = element.getAttribute('aria-label') || element.labels?.[0]?.textContent || element.textContent || ''
        return name.replace(/\s+/g, ' ').trim()
      })
      if (name.endsWith('…') ? focused.startsWith(name.slice(0, -1)) : focused === name) return
    }
    throw new Error('Tab does not reach the control')
  },
  sees: async ({ page }, { text }) => {
    const end = Date.now() + patience
    // The text of a page that is being replaced cannot be read.
    const isSeen = () => page.locator('body').innerText().then(shown => shown.includes(text), () => false)
    while (!await isSeen()) {
      if (Date.now() > end) throw new Error(`the text is not seen within ${patience} ms`)
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  },
  finds: async ({ page }, { selector }) => page.locator(selector).first().waitFor({ state: 'visible' }),
  count: async ({ page }, { selector }) => page.locator(selector).count(),
  text: async ({ page }, { selector }) => page.locator(selector).first().innerText(),
  // The text of an element that is not laid out, such as the title of a shape.
  title: async ({ page }, { selector }) => page.locator(selector).first().textContent(),
  address: async ({ page }) => { const url = new URL(page.url()); return url.pathname + url.search },
  // Paths of the requests since the last call.
  requests: async seen => seen.requests.splice(0),
  // Hides or shows the tab, as the page sees it.
  hide: async ({ page }, { hidden }) => page.evaluate(isHidden => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => isHidden })
    document.dispatchEvent(new Event('visibilitychange'))
  }, hidden),
  // Lets the page's clock run forward. The visit began with `clock`.
  forward: async ({ page }, { seconds }) => page.clock.runFor(seconds * 1000),
  // Tells all faults of the page: accessibility, widths, colours, motion, keyboard.
  examine: async ({ page }, { name }) => examine(page, path.join(screens, name)),
  // Tells the elements that stand out of the window.
  wide: async ({ page }) => page.evaluate(wide),
  // Keeps a picture of the page in a file.
  picture: async ({ page }, { file, height }) => {
    if (height) await page.setViewportSize({ width: page.viewportSize().width, height })
    fs.mkdirSync(path.dirname(file), { recursive: true })
    await page.screenshot({ path: file, animations: 'disabled' })
    return fs.statSync(file).size
  },
  // Replaces the page by a page of another site, which the driver serves, with this HTML.
  foreign: async ({ page }, { address, html }) => {
    await page.route(address, route => route.fulfill({ contentType: 'text/html', body: html }))
    await page.goto(address)
  },
  // The text of the page in the first frame.
  frame: async ({ page }) => {
    await page.frames()[1].waitForLoadState('load')
    return page.frames()[1].locator('body').innerText()
  },
  // Clicks a button or link of the page in the first frame.
  click_in_frame: async ({ page }, { name }) => button(page.frames()[1], name).click(),
  // Names of the cookies that the browser keeps for pages of a site alone.
  partitioned: async ({ context }, { site }) => {
    const cookies = await context.cookies()
    return cookies.filter(cookie => cookie.partitionKey === site).map(cookie => cookie.name)
  },
  // The reload may destroy the context of its own evaluation. Timers do not run without scripts.
  reload_frame: async ({ page }) => {
    const frame = page.frames()[1]
    await Promise.all([frame.waitForNavigation(), frame.evaluate(() => location.reload()).catch(() => {})])
  },
  // Runs an expression in the page.
  run: async ({ page }, { script }) => page.evaluate(script),
  // Ends the visit. Returns the messages of console and policy.
  end: async ({ context, messages }, { visit }) => {
    visits.delete(visit)
    await context.close()
    return messages
  },
}

// Keeps a picture and a trace of a fault.
async function keep(seen) {
  const name = path.join(screens, `failed-${seen.name}`)
  await seen.page.screenshot({ path: `${name}.png`, fullPage: true }).catch(() => {})
  await seen.context.tracing.stop({ path: `${name}.zip` }).catch(() => {})
  return `at ${seen.page.url()}, see ${name}.png and ${name}.zip; console: ${JSON.stringify(seen.messages)}`
}

async function answer(request) {
  if (request.do === 'begin') return begin(request)
  if (request.do === 'front') return fronts.open(request.secure)
  if (request.do === 'lead') return fronts.lead(request.port, request.target)
  const seen = visits.get(request.visit)
  try {
    return await actions[request.do](seen, request)
  } catch (error) {
    const { id, visit, do: action, ...members } = request
    throw new Error(`${action} ${JSON.stringify(members)}: ${error.message.split('\n')[0]} ${await keep(seen)}`)
  }
}

const print = line => process.stdout.write(`${JSON.stringify(line)}\n`)
const lines = readline.createInterface({ input: process.stdin })
lines.on('line', line => {
  const request = JSON.parse(line)
  answer(request).then(
    value => print({ id: request.id, value: value ?? null }),
    error => print({ id: request.id, error: error.message }),
  )
})
lines.on('close', async () => {
  await (await starting).close()
  process.exit()
})
