// How mppx's command line pays on a chain of our own: the key and the node it is given, instead of
// the public ones it knows for each chain id.
import { tempo } from 'mppx/client'
import { createClient, http } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'
import { tempoMainnet } from 'viem/chains'

const account = privateKeyToAccount(process.env.MPPX_PRIVATE_KEY)
const client = createClient({ chain: tempoMainnet, transport: http(process.env.MPPX_RPC_URL) })

export default { methods: [tempo.charge({ account, getClient: () => client })] }
