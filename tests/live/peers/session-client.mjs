// Reads paid streams with mppx on one channel, then closes it:
// `node session-client.mjs RPC_URL KEY PARAMETERS URL…`, the parameters JSON, for the manager. With a
// `keyType` among them, `p256` or `webAuthn`, a new account of that kind pays, with money from KEY's;
// with `accessKey`, KEY's account pays and a P-256 key signs for it.
// Prints {"words", "sent", "channel", "receipt", "payer"} as JSON: how many words came, how many
// credentials of each kind went out, the last receipt, and who paid.
import { tempo } from 'mppx/client'
import { Credential } from 'mppx'
import { createClient, http } from 'viem'
import { generatePrivateKey, privateKeyToAccount } from 'viem/accounts'
import { tempoLocalnet } from 'viem/chains'
import { Account, Actions } from 'viem/tempo'

const [rpcUrl, key, more, ...urls] = process.argv.slice(2)
const { keyType, ...parameters } = JSON.parse(more)
const token = '0x20c0000000000000000000000000000000000000'
const client = createClient({ chain: tempoLocalnet, transport: http(rpcUrl) })

async function payer() {
  const funder = privateKeyToAccount(key)
  if (!keyType) return funder
  const secret = generatePrivateKey()
  if (keyType === 'accessKey') {
    const root = Account.fromSecp256k1(key)
    const accessKey = Account.fromP256(secret, { access: root })
    const limit = { token, limit: 500_000n }
    const expiry = Math.floor(Date.now() / 1000) + 600
    await Actions.accessKey.authorizeSync(client, {
      account: root,
      accessKey,
      expiry,
      limits: [limit],
    })
    return accessKey
  }
  const account =
    keyType === 'p256'
      ? Account.fromP256(secret)
      : Account.fromHeadlessWebAuthn(secret, { rpId: 'localhost', origin: 'http://localhost' })
  await Actions.token.transferSync(client, {
    account: funder,
    token,
    to: account.address,
    amount: 1_000_000n,
  })
  return account
}

const sent = {}
const counted = async (input, init) => {
  const authorization = new Headers(init?.headers ?? input.headers).get('authorization')
  if (authorization) {
    const { action } = Credential.deserialize(authorization).payload
    sent[action] = (sent[action] ?? 0) + 1
  }
  return fetch(input, init)
}
const account = await payer()
const manager = tempo.session.manager({
  account,
  client,
  fetch: counted,
  ...parameters,
})
let words = 0
for (const url of urls) {
  for await (const _ of await manager.sse(url)) words++
}
const channel = manager.channelId
const receipt = await manager.close()
console.log(JSON.stringify({ words, sent, channel, receipt, payer: account.address }))
