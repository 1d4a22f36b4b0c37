// A stream of words sold by mppx, one at a time: `node session-server.mjs RPC_URL KEY [PARAMETERS]`,
// the key the seller's, the last ones JSON, for `tempo.session`. A `feePayer` among them is a private
// key. `GET /words/N` streams N words at 0.001 each.
// Prints {"url": …} once it listens on a free port of the loopback interface.
import { createServer } from 'node:http'
import { Mppx, Request, Store, tempo } from 'mppx/server'
import { createClient, http } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'
import { tempoLocalnet } from 'viem/chains'

const [rpcUrl, key, more = '{}'] = process.argv.slice(2)
const { feePayer, ...parameters } = JSON.parse(more)
const account = privateKeyToAccount(key)
const client = createClient({ account, chain: tempoLocalnet, transport: http(rpcUrl) })
const mppx = Mppx.create({
  methods: [
    tempo.session({
      account,
      currency: '0x20c0000000000000000000000000000000000000',
      recipient: account.address,
      chainId: tempoLocalnet.id,
      getClient: () => client,
      store: Store.memory(),
      sse: { pollingInterval: 5 },
      ...parameters,
      ...(feePayer && { feePayer: privateKeyToAccount(feePayer) }),
    }),
  ],
  realm: '127.0.0.1',
  secretKey: 'a secret of 32 bytes, only for tests',
})
const pay = mppx.session({ amount: '0.001', unitType: 'word' })

async function* words(count) {
  for (let i = 1; i <= count; i++) yield `word ${i}`
}

const server = createServer(
  Request.toNodeListener(async (request) => {
    const answer = await pay(request)
    if (answer.status === 402) return answer.challenge
    const count = Number(new URL(request.url).pathname.split('/').at(-1))
    return answer.withReceipt(words(count))
  }),
)
server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}/words` }))
})
