// Presents one credential for the payment page, so that what it buys comes as the page's next load,
// with headers and all, and a reload in between loses nothing. It keeps the credential until the
// outcome is known, in memory only, and then goes.
let held = null;

const answer = ({ served, refused, after, failed }) => ({ served, refused, after, failed });
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

self.addEventListener("install", (event) => event.waitUntil(self.skipWaiting()));

self.addEventListener("message", (event) => {
  const request = event.data;
  const port = event.ports[0];
  event.waitUntil((async () => {
    const mine = { request, found: attempt(request), taken: false };
    held = mine;
    const result = await mine.found;
    if (result.refused) held = null;
    port.postMessage(answer(result));
    // Alive until the page has come back for it.
    for (let n = 0; n < 60 && held === mine && !mine.taken; n += 1) await pause(250);
  })());
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (!held || request.mode !== "navigate" || request.method !== "GET" || request.url.split("#")[0] !== held.request.url) return;
  const mine = held;
  const collected = collect(mine, request);
  event.respondWith(collected);
  event.waitUntil(collected.then(() => leave(mine, event.resultingClientId)));
});

/** What was paid for, or what the server says to somebody who has not paid. */
async function collect(mine, request) {
  mine.taken = true;
  for (let n = 0; n < 30; n += 1) {
    const result = await mine.found;
    // A load that another one overtakes must leave something for it.
    if (result.served) return result.response.clone();
    if (result.refused) break;
    await pause(Math.max(result.after, 1) * 1000);
    mine.found = attempt(mine.request);
  }
  return fetch(request);
}

/** Forgets the credential and the response once the page that they were for is there, and goes. */
async function leave(mine, page) {
  await Promise.race([self.clients.get(page), pause(10000)]);
  if (held !== mine) return;
  held = null;
  const { response } = await mine.found;
  response?.body?.cancel().catch(() => {});
  await self.registration.unregister();
}
