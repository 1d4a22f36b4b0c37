// mppx with Stripe, on a Stripe API of our own: `node stripe.mjs serve|pay API_BASE SECRET_KEY …`.
//   serve NETWORK_ID   a paid endpoint over 0.75 USD; prints {"url": …} once it listens
//   pay URL            pays with a test card and prints {"status", "receipt", "body"}
import { createServer } from 'node:http'
import { Mppx as Client, stripe as payer } from 'mppx/client'
import { Mppx as Server, Request, stripe as seller } from 'mppx/server'

const [mode, apiBase, secretKey, argument] = process.argv.slice(2)
const direct = globalThis.fetch

// mppx knows one address of Stripe's.
globalThis.fetch = (input, init) => {
  const url = new URL(input instanceof globalThis.Request ? input.url : input)
  if (url.hostname !== 'api.stripe.com') return direct(input, init)
  return direct(new URL(url.pathname + url.search, apiBase), init)
}

const serve = () => {
  const mppx = Server.create({
    methods: [seller.charge({ secretKey, networkId: argument, paymentMethodTypes: ['card'] })],
    realm: '127.0.0.1',
    secretKey: 'a secret of 32 bytes, only for tests',
  })
  const pay = mppx.charge({ amount: '0.75', currency: 'usd', decimals: 2 })
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
}

// What an agent's backend does: a token for exactly this seller, amount and time.
const createToken = async ({ amount, currency, expiresAt, networkId, paymentMethod }) => {
  const answer = await direct(`${apiBase}/v1/test_helpers/shared_payment/granted_tokens`, {
    method: 'POST',
    headers: {
      authorization: `Basic ${btoa(`${secretKey}:`)}`,
      'stripe-version': '2026-07-29.preview',
    },
    body: new URLSearchParams({
      payment_method: paymentMethod,
      'usage_limits[currency]': currency,
      'usage_limits[max_amount]': amount,
      'usage_limits[expires_at]': String(expiresAt),
      'seller_details[network_id]': networkId,
    }),
  })
  const token = await answer.json()
  if (!answer.ok) throw new Error(`no token: ${JSON.stringify(token)}`)
  return token.id
}

const pay = async () => {
  const client = Client.create({
    methods: [payer.charge({ createToken, paymentMethod: 'pm_card_visa' })],
    polyfill: false,
    fetch: direct,
  })
  const answer = await client.fetch(argument)
  const receipt = answer.headers.get('payment-receipt')
  console.log(JSON.stringify({ status: answer.status, receipt, body: await answer.text() }))
}

await { serve, pay }[mode]()
