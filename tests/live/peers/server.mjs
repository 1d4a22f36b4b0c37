// A paid endpoint served by mppx: `node server.mjs RPC_URL RECIPIENT [PARAMETERS]`, the last ones
// JSON, for `tempo.charge`. A `feePayer` among them is a private key or the URL of a service, an
// `amount` the price.
// Prints {"url": …} once it listens on a free port of the loopback interface.
import { createServer } from 'node:http'
import { Mppx, Request, tempo } from 'mppx/server'
import { createClient, http } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'
import { tempoLocalnet } from 'viem/chains'

const [rpcUrl, recipient, more = '{}'] = process.argv.slice(2)
const { amount = '0.02', feePayer, ...parameters } = JSON.parse(more)
const client = createClient({ chain: tempoLocalnet, transport: http(rpcUrl) })
const mppx = Mppx.create({
  methods: [
    tempo.charge({
      currency: '0x20c0000000000000000000000000000000000000',
      recipient,
      chainId: tempoLocalnet.id,
      getClient: () => client,
      ...parameters,
      ...(feePayer && {
        feePayer: feePayer.startsWith('http') ? feePayer : privateKeyToAccount(feePayer),
      }),
    }),
  ],
  realm: '127.0.0.1',
  secretKey: 'a secret of 32 bytes, only for tests',
})
const pay = mppx.charge({ amount })
const server = createServer(
  Request.toNodeListener(async (request) => {
    const answer = await pay(request)
    if (answer.status === 402) return answer.challenge
    return answer.withReceipt(new Response('a joke from the other side'))
  }),
)
server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}/joke` }))
})
