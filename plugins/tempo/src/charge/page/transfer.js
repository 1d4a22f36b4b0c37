// Pays with the browser's wallet, where there is one: it sends the transfer that names this
// challenge, and the transaction's hash is presented.
//
// A transfer that was sent is presented again, and no other is sent in its place.
let sent = null;

farebox.part("tempo/charge", (part) => {
  const button = part.find("wallet");
  const able = () => {
    const can = Boolean(part.data.call && window.ethereum);
    button.hidden = !can;
    part.find("none").hidden = can;
  };
  able();
  addEventListener("ethereum#initialized", able, { once: true });

  const ask = (method, params) => window.ethereum.request({ method, params });

  async function present() {
    const { hash, from, chainId, challenge } = sent;
    part.say("Paying…");
    try {
      await part.pay({ type: "hash", hash }, { source: `did:pkh:eip155:${chainId}:${from}`, challenge, proof: hash });
      sent = null;
    } catch (error) {
      if (error.final) {
        // The page has told the payer, and shows the hash.
        sent = null;
        throw error;
      }
      throw new Error(`${error.message} The transfer was sent, as ${hash}: do not send another one. Try again, or show this hash to whoever you pay.`);
    }
  }

  const name = () => { if (sent) button.textContent = "Present the transfer again"; };
  name();
  button.addEventListener("click", () => part.run(async () => {
    if (!sent) {
      // A wallet's owner takes a while, and a transfer that comes too late opens nothing.
      await part.last(120);
      const { chainId, token, call } = part.data;
      const { challenge } = part;
      const chain = `0x${Number(chainId).toString(16)}`;
      part.say("Waiting for the wallet…");
      const [from] = await ask("eth_requestAccounts", []);
      if (BigInt(await ask("eth_chainId", [])) !== BigInt(chainId)) {
        await ask("wallet_switchEthereumChain", [{ chainId: chain }]);
      }
      if (part.left() < 45000) throw new Error("The price has lapsed while the wallet was asked. Nothing has been charged; try again.");
      const transfer = { from, to: token, data: call, value: "0x0" };
      const hash = await part.confirm(() => ask("eth_sendTransaction", [transfer]));
      sent = { hash, from, chainId, challenge };
      name();
    }
    await present();
  }));
});
