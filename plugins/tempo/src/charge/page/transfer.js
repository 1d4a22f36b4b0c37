// Pays with the browser's wallet, where there is one: it sends the transfer that names this
// challenge, and the transaction's hash is presented.
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

  button.addEventListener("click", () => part.run(async () => {
    // A wallet's owner takes a while, and a transfer that comes too late opens nothing.
    await part.last(120);
    const { chainId, token, call } = part.data;
    const chain = `0x${Number(chainId).toString(16)}`;
    part.say("Waiting for the wallet…");
    const [from] = await ask("eth_requestAccounts", []);
    if (BigInt(await ask("eth_chainId", [])) !== BigInt(chainId)) {
      await ask("wallet_switchEthereumChain", [{ chainId: chain }]);
    }
    if (part.expires - Date.now() < 45000) throw new Error("The price has lapsed while the wallet was asked. Nothing has been charged; try again.");
    const hash = await ask("eth_sendTransaction", [{ from, to: token, data: call, value: "0x0" }]);
    part.say("Paying…");
    await part.pay({ type: "hash", hash }, { source: `did:pkh:eip155:${chainId}:${from}` });
  }));
});
