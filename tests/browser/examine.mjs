// Examines a page: accessibility in both schemes, narrow and zoomed widths, forced colours, motion, and the keyboard.
import fs from 'node:fs'
import { createRequire } from 'node:module'

const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

// Widths in CSS pixels: a small phone, and half of a usual window, as a zoom of 200 % leaves.
const WIDTHS = [
  ['320 px', { width: 320, height: 640, deviceScaleFactor: 1, mobile: false }],
  ['200 %', { width: 640, height: 400, deviceScaleFactor: 2, mobile: false }],
]

export async function examine(page, name) {
  const faults = []
  const session = await page.context().newCDPSession(page)
  // A page that changes by itself would change during the examination.
  await page.evaluate(() => { document.querySelector('#live[aria-pressed="true"]')?.click() })
  for (const scheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' })
    await page.screenshot({ path: `${name}-${scheme}.png`, fullPage: true, animations: 'disabled' })
    faults.push(...(await violations(page)).map(fault => `${scheme}: ${fault}`))
  }
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce', forcedColors: 'active' })
  faults.push(...await page.evaluate(forced))
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce', forcedColors: 'none' })
  faults.push(...await page.evaluate(moving))
  faults.push(...await tabs(page))
  for (const [what, metrics] of WIDTHS) {
    await session.send('Emulation.setDeviceMetricsOverride', metrics)
    faults.push(...(await page.evaluate(wide)).map(fault => `${what}: ${fault}`))
    if (metrics.width === 320) await page.screenshot({ path: `${name}-narrow.png`, fullPage: true, animations: 'disabled' })
  }
  await session.send('Emulation.clearDeviceMetricsOverride')
  await session.detach()
  return faults
}

async function violations(page) {
  await page.evaluate(axe)
  const found = await page.evaluate(() => window.axe.run())
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(node => `${node.target} ${node.failureSummary.split('\n')[1]?.trim()}`).join(' | ')}`)
}

// Elements that stand out of a narrow window.
export function wide() {
  const over = document.documentElement.scrollWidth - innerWidth
  if (over <= 0) return []
  const outside = [...document.querySelectorAll('body *')].filter(element => element.getBoundingClientRect().right > innerWidth + 1)
  const names = outside.slice(0, 3).map(element => `${element.tagName.toLowerCase()}.${element.className}`)
  return [`wider by ${over} px: ${names}`]
}

// With forced colours, states and controls need an edge or an outline of their own.
function forced() {
  const has = element => {
    const style = getComputedStyle(element)
    return style.borderTopStyle !== 'none' && style.borderTopWidth !== '0px'
  }
  const edged = [...document.querySelectorAll('.state, button, input:not([type=hidden]), select, textarea')]
  return edged.filter(element => element.checkVisibility() && !has(element) && !['checkbox', 'radio'].includes(element.type))
    .slice(0, 3).map(element => `forced colours: ${element.tagName.toLowerCase()}.${element.className} has no edge`)
}

// With reduced motion, nothing moves.
function moving() {
  const moves = element => {
    const style = getComputedStyle(element)
    return style.animationName !== 'none' || style.transitionDuration.split(',').some(text => parseFloat(text) > 0)
      && style.transitionProperty !== 'none'
  }
  return [...document.querySelectorAll('body *')].filter(moves).slice(0, 3).map(element => `reduced motion: ${element.tagName} moves`)
}

// Presses Tab until all controls had the focus, each with a visible mark.
async function tabs(page) {
  const count = await page.evaluate(() => {
    const reachable = element => element.tabIndex >= 0 && !element.disabled && element.checkVisibility({ visibilityProperty: true })
    const all = [...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex]')]
    const groups = new Set()
    // Of the radio buttons of a name, Tab reaches the chosen, or the first.
    const isFirst = element => {
      if (element.type !== 'radio') return true
      const chosen = document.querySelector(`input[type=radio][name="${element.name}"]:checked`)
      if (chosen) return chosen === element
      return !groups.has(element.name) && groups.add(element.name)
    }
    window.unreached = new Set(all.filter(reachable).filter(isFirst))
    document.activeElement?.blur?.()
    getSelection().removeAllRanges()
    scrollTo(0, 0)
    return window.unreached.size
  })
  const faults = []
  for (let pressed = 0; pressed < count + 20; pressed++) {
    await page.keyboard.press('Tab')
    const fault = await page.evaluate(() => {
      const element = document.activeElement
      window.unreached.delete(element)
      if (!window.unreached.size) return 'done'
      if (element === document.body) return null
      const style = getComputedStyle(element)
      const place = element.getBoundingClientRect()
      const what = `${element.tagName.toLowerCase()} ${(element.id || element.textContent || '').trim().slice(0, 40)}`
      if (style.outlineStyle === 'none' || parseFloat(style.outlineWidth) < 2) return `no focus is seen on ${what}`
      if (place.bottom < 0 || place.top > innerHeight || place.right < 0 || place.left > innerWidth) return `out of sight: ${what}`
      return null
    })
    if (fault === 'done') return faults
    if (fault && faults.length < 3) faults.push(fault)
  }
  const left = await page.evaluate(() => [...window.unreached].slice(0, 3).map(element => element.outerHTML.slice(0, 120)))
  return [...faults, `Tab does not reach ${left.join(' | ')}`]
}
