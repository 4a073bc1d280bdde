/** Refuses to run without a Fanfare: all tests need the variables. */
export default function requireFanfare(): void {
  const missing = ['FANFARE_API', 'FANFARE_KEY', 'FANFARE_APPLICATION'].filter((name) => !process.env[name])
  if (missing.length > 0) {
    throw new Error(
      `${missing.join(', ')} must be set. The tests need a running Fanfare, such as the demo of \`make run\`: ` +
        'set FANFARE_API to the printed API, FANFARE_KEY to KEY, FANFARE_APPLICATION to APPLICATION, ' +
        'and optionally FANFARE_ADMIN_KEY to ADMIN_KEY.',
    )
  }
}
