// Collects a card with Stripe.js, has the server mint a token for this challenge, and pays with it.
farebox.part("stripe/charge", (part) => {
  const look = getComputedStyle(part.panel);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const stripe = Stripe(part.data.publishableKey, part.data.options);
  const card = stripe.elements().create("card", {
    hidePostalCode: true,
    style: {
      base: { color: color("text"), fontFamily: look.fontFamily, fontSize: "16px", "::placeholder": { color: color("muted") } },
      invalid: { color: color("bad") },
    },
  });
  card.mount(part.find("card"));
  part.find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    part.run(async () => {
      await part.last(30);
      part.say("Checking the card…");
      const made = await stripe.createPaymentMethod({ type: "card", card });
      if (made.error) throw new Error(made.error.message);
      part.say("Paying…");
      const payload = await part.prepare({ paymentMethod: made.paymentMethod.id });
      await part.pay(payload);
    });
  });
  // A fresh challenge needs no other card.
  return { renewed() {} };
});
