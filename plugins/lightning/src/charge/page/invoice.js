// Shows an invoice. Whoever pays it learns the preimage, which is the payment's proof: from the
// browser's wallet over WebLN, or pasted.
const shown = new Map();

async function hashOf(preimage) {
  const bytes = Uint8Array.from(preimage.match(/../g), (pair) => parseInt(pair, 16));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

farebox.part("lightning/charge", (part) => {
  const { invoice, paymentHash } = part.data;
  // An invoice that was replaced meanwhile may have been paid.
  shown.set(paymentHash, part.challenge);

  async function present(text) {
    const preimage = String(text).trim().toLowerCase();
    if (!/^[0-9a-f]{64}$/.test(preimage)) throw new Error("That is no preimage: it has 64 hexadecimal digits.");
    const proof = await hashOf(preimage);
    const challenge = shown.get(proof);
    if (!challenge) throw new Error("That preimage belongs to another invoice. Paste the one of the invoice shown here.");
    await part.pay({ preimage }, { challenge, proof });
  }

  const webln = part.find("webln");
  const offer = () => { webln.hidden = !window.webln; };
  offer();
  addEventListener("webln:ready", offer);
  webln.addEventListener("click", () => part.run(async () => {
    let paid;
    part.say("Waiting for the wallet…");
    try {
      await window.webln.enable();
      // A proof that comes too late opens nothing. A fresh invoice is the part's own.
      await part.last(60);
      paid = await part.confirm(() => window.webln.sendPayment(part.data.invoice));
    } catch (error) {
      const why = error?.message ? `: ${error.message}` : "";
      throw new Error(`The wallet did not confirm the payment${why}. If it shows it as paid, paste the preimage here and do not pay again.`);
    }
    await present(paid.preimage);
  }));

  const copy = part.find("copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(invoice);
      part.say("The invoice was copied.");
    } catch {
      part.say(invoice);
    }
  });

  const preimage = part.find("preimage");
  part.find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    part.run(() => present(preimage.value));
  });
});
