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

/** How many seconds a payment needs from its wallet to the server. */
const WAY = 15;

/** A time as people say it, in few steps: each is read out. */
function about(seconds) {
  if (seconds >= 120) return `${Math.floor(seconds / 60)} minutes`;
  return seconds >= 60 ? "a minute" : seconds >= 30 ? "half a minute" : "a few seconds";
}

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
    // The payer's clock may be wrong, and may stand still while the machine sleeps.
    this.taken = { lasts: data.lasts, ran: performance.now(), clock: Date.now() };
  }

  /** How long the challenge can still be paid for, in milliseconds. */
  left() {
    const { lasts, ran, clock } = this.taken;
    return lasts - Math.max(performance.now() - ran, Date.now() - clock);
  }

  /** Whether whoever begins to pay now has the time to. */
  fresh() { return this.left() > Math.min(this.taken.lasts / 3, 90000); }

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
    const focused = document.activeElement;
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
      // What is disabled has lost the focus.
      const shown = focused?.isConnected ? focused : this.panel.querySelector(".pay:not([hidden])");
      if (document.activeElement === document.body) shown?.focus();
    }
  }

  /** Sees to it that the challenge can be paid for so many more seconds. */
  async last(seconds) {
    if (this.left() < seconds * 1000) await renew();
    if (this.left() <= 0) throw new Error("This price has lapsed, and a fresh one could not be had. Nothing has been charged; load the page again.");
  }

  /**
   * Waits for a wallet, which is asked to pay: nothing is known of its payment until it answers. Its
   * owner is told how long there is, and when it is too late: what is paid then opens nothing.
   */
  async confirm(asking) {
    let told = "";
    const tell = () => {
      const left = this.left() / 1000 - WAY;
      const text = left > 0 ? `Waiting for the wallet… Confirm within ${about(left)}.` : "Waiting for the wallet…";
      if (text !== told) say(told = text);
      if (left <= 0) fail("It is too late to confirm. Reject the payment in the wallet, and begin again here.");
    };
    mark(crypto.randomUUID());
    tell();
    const clock = setInterval(tell, 1000);
    try {
      return await asking();
    } catch (error) {
      // Its owner said no; anything else may have been paid.
      if (error?.code === 4001) mark(null);
      throw error;
    } finally {
      clearInterval(clock);
    }
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
   * resource. Comes back only by throwing. Where money has moved already, `proof` is what shows it to
   * whoever was paid, and nothing secret; if the payment is refused for good, the error is `final`,
   * and the payer is left with it.
   */
  async pay(payload, { source, challenge = this.challenge, proof } = {}) {
    const credential = { challenge, payload };
    if (source) credential.source = source;
    await present(encode(credential), proof);
  }
}

/** A server's detail as a sentence. */
function sentence(text) {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}

function hold(now) {
  busy = now;
  // Not the live regions: what they say must be heard meanwhile.
  for (const part of parts) part.panel.setAttribute("aria-busy", String(now));
  for (const control of root.querySelectorAll("button, input, textarea")) control.disabled = now;
  if (now) addEventListener("beforeunload", leaving); else removeEventListener("beforeunload", leaving);
}

function leaving(event) { event.preventDefault(); }

/** The worker that hands the paid response to the next load of this address; null where there is none. */
async function worker() {
  if (!navigator.serviceWorker) return null;
  const script = `${location.pathname}?farebox-worker`;
  try {
    // One that the site itself has here stays.
    const there = await navigator.serviceWorker.getRegistration();
    const its = there?.active || there?.waiting || there?.installing;
    if (its && new URL(there.scope).pathname === location.pathname && its.scriptURL !== new URL(script, location.origin).href) return null;
    const registration = await navigator.serviceWorker.register(script, {
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

/** One question to the worker; null where it does not answer in so many milliseconds. */
function ask(to, message, ms) {
  return new Promise((resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = (event) => resolve(event.data);
    to.postMessage(message, [channel.port2]);
    setTimeout(resolve, ms, null);
  });
}

const MARK = `farebox-pending ${here}`;

/** Notes that a payment is under way, for a load that knows nothing of it; nothing secret. */
function mark(key, proof) {
  try {
    if (key) sessionStorage.setItem(MARK, JSON.stringify({ key, proof, until: Date.now() + 900000 }));
    else sessionStorage.removeItem(MARK);
  } catch { /* A browser that stores nothing. */ }
}

/** What was noted of a payment that was under way when this page was loaded, if its end is not known. */
async function pending() {
  try {
    const noted = JSON.parse(sessionStorage.getItem(MARK));
    if (!noted) return null;
    const cache = await globalThis.caches?.open("farebox");
    if (noted.until > Date.now() && !await cache?.delete(`/farebox-done/${noted.key}`)) return noted;
    mark(null);
  } catch { /* A browser that stores nothing. */ }
  return null;
}

/** Presents a credential until somebody knows what became of it. The same credential never pays twice. */
async function present(authorization, proof) {
  const request = { url: location.href.split("#")[0], header: page.header, authorization, key: crypto.randomUUID() };
  mark(request.key, proof);
  let through = await worker();
  let [bare, anyway] = [0, null];
  for (let tries = 0; ; tries += 1) {
    say(tries === 0 ? "Paying…" : "The payment is being confirmed. Keep this page open; you will not be charged twice.");
    let answer = through ? await ask(through, request, 60000) : await attempt(request);
    if (!answer) {
      // The worker has ended. The next one is told everything again.
      through = await worker();
      answer = { after: 1 };
    }
    if (answer.served && await open(through, request, answer)) return;
    if (answer.refused) {
      anyway?.box.remove();
      const text = sentence(answer.refused.detail || "The payment was refused");
      if (proof && answer.refused.anew) {
        warn("The server did not take this payment, though your wallet has made it. Do not pay again before you have asked whoever you pay about it. This shows your payment; keep it:", proof);
        // What is said of a late one is to begin afresh.
        throw Object.assign(new Error(answer.refused.late ? "The payment came too late: its price had lapsed." : text), { final: true });
      }
      mark(null);
      throw answer.refused.anew ? new Refused(text) : new Error(text);
    }
    if (answer.failed && tries > 0) {
      fail(`The server answered ${answer.failed}. It is asked again, with the same payment, until it works; keep this page open.`);
    }
    // Something in between may have taken the receipt away, or answered in the server's place.
    bare = answer.bare ? bare + 1 : 0;
    if (bare === 3) anyway = choice("The server answers, but without a receipt for your payment.", "Open what it sends");
    const pause = wait(Math.max((answer.after || 1) * 1000, Math.min(500 * 2 ** tries, 15000)));
    if (anyway && await Promise.race([pause, anyway.made])) request.any = true;
    await (request.any || pause);
  }
}

/** Opens what was paid for. `false`: it is gone with its worker, and must be had again. */
async function open(through, request, answer) {
  if (through && !(await ask(through, { open: request.key }, 5000))?.known) return false;
  fail("");
  say("Paid. Opening…");
  removeEventListener("beforeunload", leaving);
  let { download } = answer;
  if (through) {
    mark(null);
    location.reload();
  } else if (answer.response.type === "opaqueredirect") {
    // Where it leads is seen by following it, which the same payment covers.
    const response = await send(request, "follow").catch(() => null);
    mark(null);
    if (!response?.redirected) throw new Error("Paid. What was paid for is at another address, which this browser does not say.");
    location.replace(response.url);
  } else {
    const { response } = answer;
    const url = URL.createObjectURL(await response.blob());
    mark(null);
    const disposition = response.headers.get("Content-Disposition") || "";
    download = /^\s*attachment/i.test(disposition);
    if (download) {
      const name = /filename="?([^";]+)/i.exec(disposition)?.[1] || location.pathname.split("/").pop();
      Object.assign(document.createElement("a"), { href: url, download: name }).click();
    } else location.replace(url);
  }
  // A page that opens takes the place of this one.
  await wait(download ? 3000 : 30000);
  say(download ? "Paid. The download has started." : "Paid.");
  await renew();
  return true;
}

/** Fresh challenges, in the place of those on the page. */
async function renew() {
  root.classList.remove("lapsed");
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
    // What somebody has typed, or is typing, stays.
    const typed = [...part.panel.querySelectorAll("input:not([readonly])")].map((field) => [field.id, field.value]);
    const at = part.panel.contains(document.activeElement) ? document.activeElement.id : "";
    part.panel.replaceChildren(...document.importNode(panel, true).childNodes);
    for (const [id, value] of typed) {
      const field = document.getElementById(id);
      if (field) field.value = value;
    }
    make(part);
    if (busy) hold(true);
    if (at) document.getElementById(at)?.focus();
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
    const given = renewals > 0;
    if (busy || document.hidden || root.classList.contains("pending") || parts.every((part) => given ? part.fresh() : part.left() > 0)) continue;
    if (!given) {
      root.classList.add("lapsed");
      fail("This price has lapsed. Load the page again to pay. If you have just paid, do not pay again: show whoever you pay what your wallet says.");
      return;
    }
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

/** Says something, with a proof of payment and a button; `made` comes true when that is pressed. */
function choice(text, label, proof) {
  const element = (name, properties) => Object.assign(document.createElement(name), properties);
  const box = element("div", { className: "notice", role: "alert", tabIndex: -1 });
  const button = element("button", { type: "button", className: "pay quiet", textContent: label });
  const made = new Promise((resolve) => {
    button.addEventListener("click", () => { box.remove(); resolve(true); });
  });
  box.append(element("p", { textContent: text }));
  if (proof) box.append(element("code", { textContent: proof }));
  box.append(button);
  root.prepend(box);
  box.focus();
  return { made, box };
}

/** Asks whoever may have paid already. */
async function warn(text, proof) {
  root.classList.add("pending");
  await choice(text, "Pay all the same", proof).made;
  mark(null);
  root.classList.remove("pending");
  fail("");
  if (!parts.every((part) => part.fresh())) await renew();
}

addEventListener("DOMContentLoaded", async () => {
  const panels = root.querySelectorAll(".panel");
  page.parts.forEach((data, n) => { parts.push(new Part(data, panels[n])); });
  const noted = await pending();
  if (noted) {
    warn("A payment for this page was under way when it was loaded again, and its outcome is not known here. Look at your card's or wallet's account before you pay again.", noted.proof);
  }
  root.hidden = false;
  parts.forEach(make);
  tabs();
  keep();
});
