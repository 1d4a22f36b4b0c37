// Takes a payment channel through its whole life with viem: `node channel.mjs RPC_URL PAYER_KEY
// PAYEE_KEY`. Prints what came of each step as JSON, a refusal by the name of its error.
import { createClient, http } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'
import { tempoLocalnet } from 'viem/chains'
import { Actions } from 'viem/tempo'

const [rpcUrl, ...keys] = process.argv.slice(2)
const chain = tempoLocalnet.extend({ feeToken: '0x20c0000000000000000000000000000000000001' })
const client = createClient({ chain, transport: http(rpcUrl) })
const [payer, payee] = keys.map((key) => privateKeyToAccount(key))
const { openSync, settleSync, topUpSync, requestCloseSync, withdrawSync } = Actions.channel

// What a step says of itself, or the name of the error that the chain refuses it with.
async function step(attempt) {
  try {
    const { receipt, ...said } = await attempt()
    return said
  } catch (error) {
    const refused = error.walk?.((cause) => cause.data?.errorName)
    if (!refused) throw error
    return { refused: refused.data.errorName }
  }
}

const token = '0x20c0000000000000000000000000000000000000'
const open = await step(() =>
  openSync(client, { account: payer, payee: payee.address, token, deposit: 1_000n }),
)
const channel = {
  payer: open.payer,
  payee: open.payee,
  operator: open.operator,
  token: open.token,
  salt: open.salt,
  authorizedSigner: open.authorizedSigner,
  expiringNonceHash: open.expiringNonceHash,
}
const voucher = async (cumulativeAmount) => ({
  channel,
  cumulativeAmount,
  signature: await Actions.channel.signVoucher(client, {
    account: payer,
    channel,
    cumulativeAmount,
  }),
})
const settle = async (account, amount) => {
  const parameters = { account, ...(await voucher(amount)) }
  return step(() => settleSync(client, parameters))
}
const said = { open }
said.stranger = await settle(payer, 400n)
said.tooMuch = await settle(payee, 1_001n)
said.settled = await settle(payee, 400n)
said.again = await settle(payee, 400n)
said.early = await step(() => withdrawSync(client, { account: payer, channel }))
said.requested = await step(() => requestCloseSync(client, { account: payer, channel }))
said.topUp = await step(() =>
  topUpSync(client, { account: payer, channel, additionalDeposit: 500n }),
)
const { closeRequestedAt } = await Actions.channel.getStates(client, { channel })
said.pending = closeRequestedAt !== 0
await step(() => requestCloseSync(client, { account: payer, channel }))
const deadline = Date.now() + 120_000
do {
  said.withdrawn = await step(() => withdrawSync(client, { account: payer, channel }))
} while (said.withdrawn.refused === 'CloseNotReady' && Date.now() < deadline)
said.gone = await settle(payee, 500n)
console.log(JSON.stringify(said, (_, value) => (typeof value === 'bigint' ? `${value}` : value)))
