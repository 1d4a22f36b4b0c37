// Calls a tool over stdio and pays for it with mppx: `node mcp-client.mjs RPC_URL KEY TOOL COMMAND…`.
// Prints what came back as JSON.
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { tempo } from 'mppx/client'
import { McpClient } from 'mppx/mcp/client'
import { createClient, http } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'
import { tempoLocalnet } from 'viem/chains'

const [rpcUrl, key, name, command, ...args] = process.argv.slice(2)
const account = privateKeyToAccount(key)
const chain = createClient({ chain: tempoLocalnet, transport: http(rpcUrl) })
const client = new Client({ name: 'agent', version: '1.0.0' })
await client.connect(new StdioClientTransport({ command, args, stderr: 'inherit' }))
McpClient.wrap(client, { methods: [tempo.charge({ account, getClient: () => chain })] })
const { content, receipt } = await client.callTool({ name, arguments: {} })
console.log(JSON.stringify({ content, receipt }))
await client.close()
