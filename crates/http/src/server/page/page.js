// The payment page: shows one part for each way to pay, and carries what a part pays to the server.
//
// A part's script calls farebox.part(offer, setup). `setup` gets the part, and may return an object
// whose `renewed()` is called when a fresh challenge has come, where the fields need not be made anew.
// A credential lives in this page's memory and in its worker's, and nowhere else.
const page = JSON.parse(document.getElementById("farebox-data").textContent);
const root = document.getElementById("farebox");
const setups = new Map();
const parts = [];
const here = location.pathname + location.search;
let busy = false;
let renewing = null;

const alertBox = document.getElementById("farebox-alert");
const statusBox = document.getElementById("farebox-status");
const say = (text) => { statusBox.textContent = text; };
const fail = (text) => {
  alertBox.textContent = text;
  alertBox.hidden = !text;
  if (text) alertBox.scrollIntoView({ block: "nearest" });
};

window.farebox = Object.freeze({ part: (offer, setup) => { setups.set(offer, setup); } });

const wait = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

function encode(credential) {
  const bytes = new TextEncoder().encode(JSON.stringify(credential));
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return "Payment " + btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

class Refused extends Error {}

/** One way to pay, for its script. */
class Part {
  constructor(data, panel) {
    this.panel = panel;
    this.take(data);
  }

  take(data) {
    this.offer = data.offer;
    this.price = data.price;
    this.data = data.data;
    this.challenge = data.challenge;
    this.expires = Date.parse(data.challenge.expires);
  }

  /** The part's element with this name, its `data-farebox`. */
  find(name) {
    return this.panel.querySelector(`[data-farebox="${name}"]`);
  }

  /** Tells the payer what is going on. */
  say(text) { say(text); }

  /**
   * Runs what one press of a button begins, once at a time. What it throws is shown to the payer.
   */
  async run(work) {
    if (busy) return;
    hold(true);
    fail("");
    try {
      await renewing;
      await work();
    } catch (error) {
      say("");
      fail(error.message || "That did not work. Nothing has been charged.");
      if (error instanceof Refused) await renew();
    } finally {
      hold(false);
    }
  }

  /** Sees to it that the challenge can be paid for so many more seconds. */
  async last(seconds) {
    if (this.expires - Date.now() < seconds * 1000) await renew();
  }

  /** Has the server make a payload out of what was collected. */
  async prepare(collected) {
    const headers = { "Farebox-Page": "prepare", Accept: "application/json, application/problem+json" };
    headers[page.header] = encode({ challenge: this.challenge, payload: collected });
    let answer;
    try {
      answer = await fetch(here, { headers, cache: "no-store" });
    } catch {
      throw new Error("The server cannot be reached. Nothing has been charged; try again.");
    }
    const body = await answer.json().catch(() => ({}));
    if (answer.ok) return body;
    const text = body.detail ? sentence(body.detail) : "The server could not begin the payment.";
    if (answer.status === 402 || answer.status === 410) throw new Refused(text);
    throw new Error(`${text} Nothing has been charged.`);
  }

  /**
   * Presents a payload as the payment of the part's challenge, or of an earlier one, and opens the
   * resource. Comes back only by throwing.
   */
  async pay(payload, { source, challenge = this.challenge } = {}) {
    const credential = { challenge, payload };
    if (source) credential.source = source;
    await present(encode(credential));
  }
}

/** A server's detail as a sentence. */
function sentence(text) {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}

function hold(now) {
  busy = now;
  root.setAttribute("aria-busy", String(now));
  for (const control of root.querySelectorAll("button, input, textarea")) control.disabled = now;
  if (now) addEventListener("beforeunload", leaving); else removeEventListener("beforeunload", leaving);
}

function leaving(event) { event.preventDefault(); }

/** The worker that hands the paid response to the next load of this address; null where there is none. */
async function worker() {
  if (!navigator.serviceWorker) return null;
  try {
    const registration = await navigator.serviceWorker.register(`${location.pathname}?farebox-worker`, {
      scope: location.pathname, updateViaCache: "none",
    });
    const found = registration.installing || registration.waiting || registration.active;
    for (let n = 0; found.state !== "activated"; n += 1) {
      if (n > 100 || found.state === "redundant") return null;
      await wait(50);
    }
    return found;
  } catch {
    return null;
  }
}

/** One question to the worker. */
function ask(to, message) {
  return new Promise((resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = (event) => resolve(event.data);
    to.postMessage(message, [channel.port2]);
  });
}

/** Presents a credential until somebody knows what became of it. The same credential never pays twice. */
async function present(authorization) {
  const request = { url: location.href.split("#")[0], header: page.header, authorization, key: crypto.randomUUID() };
  const through = await worker();
  for (let tries = 0; ; tries += 1) {
    say(tries === 0 ? "Paying…" : "The payment is being confirmed. Keep this page open; you will not be charged twice.");
    const answer = through ? await ask(through, request) : await attempt(request);
    if (answer.served) {
      say("Paid. Opening…");
      removeEventListener("beforeunload", leaving);
      if (through) location.reload();
      else location.replace(URL.createObjectURL(await answer.response.blob()));
      await new Promise(() => {});
    }
    if (answer.refused) {
      const text = sentence(answer.refused.detail || "The payment was refused");
      throw answer.refused.anew ? new Refused(text) : new Error(text);
    }
    if (answer.failed && tries > 0) {
      fail(`The server answered ${answer.failed}. It is asked again, with the same payment, until it works; keep this page open.`);
    }
    await wait(Math.max(answer.after * 1000, Math.min(500 * 2 ** tries, 15000)));
  }
}

/** Fresh challenges, in the place of those on the page. */
async function renew() {
  let fresh;
  try {
    const answer = await fetch(here, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (answer.status !== 402) throw new Error();
    fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    const told = alertBox.hidden ? "" : `${alertBox.textContent} `;
    fail(`${told}A fresh price could not be had: load this page again before you pay.`);
    return;
  }
  const data = fresh.getElementById("farebox-data");
  const next = data ? JSON.parse(data.textContent).parts : [];
  const same = next.length === parts.length
    && next.every((part, n) => part.offer === parts[n].offer && part.price === parts[n].price);
  if (!same) {
    removeEventListener("beforeunload", leaving);
    location.reload();
    await new Promise(() => {});
  }
  parts.forEach((part, n) => {
    part.take(next[n]);
    if (part.made?.renewed) { part.made.renewed(); return; }
    const panel = fresh.getElementById(part.panel.id);
    part.panel.replaceChildren(...document.importNode(panel, true).childNodes);
    make(part);
  });
}

function make(part) {
  try {
    part.made = setups.get(part.offer)?.(part);
  } catch {
    part.panel.replaceChildren(Object.assign(document.createElement("p"), {
      className: "notice bad", textContent: "This way to pay could not be loaded. Try another one, or load the page again.",
    }));
  }
}

/** How often challenges are renewed for somebody who only looks. */
let renewals = 12;

/** Challenges lapse. They are renewed while somebody looks. */
async function keep() {
  for (;;) {
    await wait(1000);
    const first = Math.min(...parts.map((part) => part.expires));
    if (busy || document.hidden || Date.now() < first) continue;
    if (renewals === 0) { fail("This price has lapsed. Load the page again to pay."); return; }
    renewals -= 1;
    renewing = renew();
    await renewing;
    renewing = null;
  }
}

function tabs() {
  const list = [...root.querySelectorAll('[role="tab"]')];
  const select = (n, focus) => {
    list.forEach((tab, m) => {
      tab.setAttribute("aria-selected", String(m === n));
      tab.tabIndex = m === n ? 0 : -1;
      parts[m].panel.hidden = m !== n;
    });
    fail("");
    say("");
    if (focus) list[n].focus();
  };
  list.forEach((tab, n) => {
    tab.addEventListener("click", () => select(n, false));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: n + 1, ArrowLeft: n - 1, Home: 0, End: list.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      select((to + list.length) % list.length, true);
    });
  });
}

addEventListener("DOMContentLoaded", () => {
  const panels = root.querySelectorAll(".panel");
  page.parts.forEach((data, n) => { parts.push(new Part(data, panels[n])); });
  root.hidden = false;
  parts.forEach(make);
  tabs();
  keep();
});
