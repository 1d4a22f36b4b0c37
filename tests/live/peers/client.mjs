// Buys with mppx: `node client.mjs URL RPC_URL KEY`. Prints the answer's body.
import { Mppx, tempo } from 'mppx/client'
import { createClient, http } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'
import { tempoLocalnet } from 'viem/chains'

const [url, rpcUrl, key] = process.argv.slice(2)
const account = privateKeyToAccount(key)
const chain = createClient({ chain: tempoLocalnet, transport: http(rpcUrl) })
const mppx = Mppx.create({
  methods: [tempo.charge({ account, getClient: () => chain })],
  polyfill: false,
  maxPaymentRetries: 1,
})
const answer = await mppx.fetch(url)
const body = await answer.text()
if (!answer.ok) throw new Error(`${answer.status}: ${body}`)
console.log(body)
