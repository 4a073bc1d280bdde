import { digestOf } from '@fanfare/sdk'
import { expect, test } from 'vitest'

test('the hash is that of sorted lines, each once', () => {
  const [first, second] = ['evt_01h455vb4pex5vsknk084sn02q', 'evt_01h455vb4pex5vsknk084sn02r']
  const expected = 'e3d7994ad3870edd3693e956cdf118ea785a9a4002642477103be320bfe32017'
  expect(digestOf([second, first, second])).toBe(expected)
  expect(digestOf(new Set([first, second]))).toBe(expected)
  // `sha256sum < /dev/null`
  expect(digestOf([])).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')
})
