// An MCP server over stdio whose tool is sold by mppx: `node mcp-server.mjs RPC_URL RECIPIENT`.
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js'
import { Mppx, Transport, tempo } from 'mppx/server'
import { createClient, http } from 'viem'
import { tempoLocalnet } from 'viem/chains'

const [rpcUrl, recipient] = process.argv.slice(2)
const client = createClient({ chain: tempoLocalnet, transport: http(rpcUrl) })
const mppx = Mppx.create({
  methods: [
    tempo.charge({
      currency: '0x20c0000000000000000000000000000000000000',
      recipient,
      chainId: tempoLocalnet.id,
      getClient: () => client,
    }),
  ],
  realm: 'jokes.example',
  secretKey: 'a secret of 32 bytes, only for tests',
  transport: Transport.mcpSdk(),
})
const pay = mppx.charge({ amount: '0.02' })
const server = new McpServer({ name: 'jokes', version: '1.0.0' })
server.registerTool('joke', { description: 'A joke, for 0.02' }, async (extra) => {
  const answer = await pay(extra)
  if (answer.status === 402) throw answer.challenge
  return answer.withReceipt({ content: [{ type: 'text', text: 'a joke from the other side' }] })
})
await server.connect(new StdioServerTransport())
