// A stand-in for Stripe.js: as much of it as a page with one card field uses. The field's inputs are
// the page's own and not a frame's, so it is for test cards only.
(() => {
  const base = new URL(document.currentScript.src).origin;

  class CardElement {
    constructor(options) {
      this.options = options;
      this.inputs = {};
    }

    mount(target) {
      const box = typeof target === "string" ? document.querySelector(target) : target;
      const base = this.options.style?.base ?? {};
      Object.assign(box.style, { display: "flex", flexWrap: "wrap", gap: ".25rem .625rem", alignItems: "center" });
      for (const [name, label, hint, autocomplete, width, length] of [
        ["number", "Card number", "1234 1234 1234 1234", "cc-number", "1 1 10.5rem", 19],
        ["exp", "Expiry", "MM / YY", "cc-exp", "0 1 4.5rem", 7],
        ["cvc", "CVC", "CVC", "cc-csc", "0 1 3rem", 4],
      ]) {
        const input = Object.assign(document.createElement("input"), {
          type: "text", inputMode: "numeric", autocomplete, placeholder: hint, maxLength: length, name,
        });
        input.setAttribute("aria-label", label);
        Object.assign(input.style, {
          flex: width, width: "auto", minWidth: "0", minHeight: "0", padding: "0", border: "0", outline: "none",
          background: "transparent", color: base.color ?? "inherit", fontFamily: base.fontFamily ?? "inherit",
          fontSize: base.fontSize ?? "inherit",
        });
        input.addEventListener("input", () => format(name, input));
        this.inputs[name] = input;
        box.append(input);
      }
    }

    on() {}
    unmount() {}
    destroy() {}
  }

  function format(name, input) {
    const digits = input.value.replace(/\D/g, "");
    if (name === "number") input.value = digits.slice(0, 16).replace(/(.{4})(?=.)/g, "$1 ");
    if (name === "exp" && digits.length > 2) input.value = `${digits.slice(0, 2)} / ${digits.slice(2, 4)}`;
  }

  window.Stripe = (key) => ({
    elements: () => ({ create: (_, options = {}) => new CardElement(options) }),

    async createPaymentMethod({ card }) {
      const body = new URLSearchParams({ key, type: "card" });
      for (const [name, input] of Object.entries(card.inputs)) body.set(`card[${name}]`, input.value);
      try {
        const answer = await fetch(`${base}/v1/payment_methods`, { method: "POST", body, credentials: "omit" });
        const found = await answer.json();
        return answer.ok ? { paymentMethod: found } : { error: found.error };
      } catch {
        return { error: { type: "api_connection_error", message: "Stripe cannot be reached. Nothing has been charged." } };
      }
    },
  });
})();
