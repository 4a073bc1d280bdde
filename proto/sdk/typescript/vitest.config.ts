import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    globalSetup: 'tests/require-fanfare.ts',
    include: ['tests/**/*.test.ts'],
    testTimeout: 60_000,
  },
})
