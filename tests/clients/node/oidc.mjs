// A provider of OpenID Connect (oidc-provider), and a browser that signs in by it.
//
// Prints the issuer. Reads lines {"ingest": "127.0.0.1:1234", "user": "ada", "change": {"state": "x"}}: opens the sign-in
// of the console, is `user` at the provider, and comes back with the query parameters of `change` replaced. Prints a line
// {"status", "path", "body", "cookies"} about the last page. Groups of a user are the parts of the name: "ada.operators".
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import Provider from 'oidc-provider'

// Notices of the provider go to standard error: standard output has only the lines for the test.
console.info = console.error
const pages = 'http://127.0.0.1'
const server = createServer().listen(0, '127.0.0.1')
await new Promise(done => server.once('listening', done))
const issuer = `http://127.0.0.1:${server.address().port}`
const provider = new Provider(issuer, {
  clients: [{
    client_id: 'fanfare', client_secret: 'a secret of the client', redirect_uris: [`${pages}/console/sign-in/callback`],
    application_type: 'web', token_endpoint_auth_method: 'client_secret_basic',
  }],
  claims: { openid: ['sub', 'groups', 'preferred_username'] },
  conformIdTokenClaims: false,
  cookies: { keys: ['a key of the test'] },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  pkce: { required: () => true },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, groups: id.split('.').slice(1) }),
  }),
  loadExistingGrant: async context => {
    const grant = new provider.Grant({ clientId: context.oidc.client.clientId, accountId: context.oidc.session.accountId })
    grant.addOIDCScope('openid')
    await grant.save()
    return grant
  },
})
const handle = provider.callback()
server.on('request', (request, response) => {
  if (!request.url.startsWith('/interaction/')) return handle(request, response)
  provider.interactionFinished(request, response, { login: { accountId: request.headers['x-user'] } })
})

const visit = async ({ ingest, user, change = {} }) => {
  const jar = {}
  let url = new URL(`${pages}/console/sign-in/provider?to=/console/session`)
  for (let steps = 0; steps < 20; steps++) {
    const isPage = url.origin === pages
    const kept = jar[url.origin] ??= {}
    const cookie = Object.entries(kept).map(([name, value]) => `${name}=${value}`).join('; ')
    if (isPage && url.searchParams.has('state')) {
      for (const [name, value] of Object.entries(change)) url.searchParams.set(name, value)
    }
    const asked = isPage ? `http://${ingest}${url.pathname}${url.search}` : url
    const answer = await fetch(asked, { redirect: 'manual', headers: { cookie, 'x-user': user } })
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line)
      if (/max-age=0|expires=Thu, 01 Jan 1970/i.test(line)) delete kept[name]
      else kept[name] = value
    }
    const to = answer.headers.get('location')
    if (!to) return { status: answer.status, path: url.pathname, body: await answer.text(), cookies: jar[pages] }
    url = new URL(to, url)
  }
  throw new Error('too many redirects')
}

console.log(issuer)
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await visit(JSON.parse(line))))
}
process.exit()
