// Presents credentials for the payment page, so that what they buy comes as the page's next load,
// with headers and all, and a reload in between loses nothing. It keeps a credential until the
// outcome is known, in memory only.

/** What is presented, by the key of its page: `found`, whether it is `open` to the next load, or `taken`. */
const attempts = new Map();
/** Films and sounds by the client that shows them, which asks for them a second time. */
const media = new Map();
/** The cache that has them as well. */
const SHELF = "farebox-media";
/** Bodies on their way. */
let flowing = 0;

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
/** How often a load asks before it says that it waits. */
const TRIES = 8;

self.addEventListener("install", (event) => event.waitUntil(self.skipWaiting()));

self.addEventListener("message", (event) => {
  const { open, ...request } = event.data;
  if (open) {
    const mine = attempts.get(open);
    if (mine) mine.open = true;
    event.ports[0].postMessage({ known: Boolean(mine) });
    return;
  }
  const port = event.ports[0];
  event.waitUntil((async () => {
    const mine = attempts.get(request.key) || { request, open: false, taken: false };
    attempts.set(request.key, mine);
    mine.request = request;
    mine.found = attempt(request);
    const { served, refused, after, failed, bare, response } = await mine.found;
    if (refused) attempts.delete(request.key);
    port.postMessage({ served, refused, after, failed, bare, download: isDownload(response) });
    // Alive until the page has come back for it.
    for (let n = 0; n < 60 && attempts.has(request.key) && !mine.taken; n += 1) await pause(250);
  })());
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = request.url.split("#")[0];
  if (["video", "audio"].includes(request.destination) && new URL(url).pathname === new URL(self.registration.scope).pathname) {
    event.respondWith(play(event.clientId, url, request));
    return;
  }
  if (request.mode !== "navigate" || request.method !== "GET") return;
  const mine = next(url);
  if (!mine) {
    // A worker that is left over has nothing more to do here.
    if (attempts.size === 0 && flowing === 0) {
      event.waitUntil(sweep().then(() => self.registration.unregister()));
    }
    return;
  }
  mine.taken = true;
  mine.wanted = event.resultingClientId;
  event.respondWith(collect(mine, request, event));
});

/** Which attempt a load is for: one whose page has said so, else one that no load has come for. */
function next(url) {
  const mine = [...attempts.values()].filter(({ request }) => request.url === url);
  return mine.find(({ open }) => open) || mine.find(({ taken }) => !taken) || mine[0];
}

/** What was paid for, what the server says to somebody who has not paid, or that it is not known. */
async function collect(mine, request, event) {
  for (let n = 0; n < TRIES; n += 1) {
    const result = await mine.found;
    if (result.served) return hand(mine, result.response, event);
    if (result.refused) {
      forget(mine);
      return fetch(request);
    }
    await pause(Math.min(Math.max(result.after, 1), 5) * 1000);
    mine.found = attempt(mine.request);
  }
  // The next load goes on asking, with the same credential.
  event.waitUntil(pause(20000));
  return waiting();
}

function forget(mine) {
  if (attempts.get(mine.request.key) === mine) attempts.delete(mine.request.key);
}

/** The paid response for a load. Its body is read to the end before this worker goes. */
async function hand(mine, response, event) {
  if (!mine.open) event.waitUntil(mark(mine.request.key).catch(() => {}));
  const page = event.resultingClientId;
  const kind = response.headers.get("Content-Type") || "";
  if (response.body && /^\s*(video|audio)\//i.test(kind)) {
    mine.kept ??= response.clone().blob();
    const bytes = await mine.kept;
    const headers = plain(response.headers);
    media.set(page, { bytes, headers });
    // This worker may have ended when the player comes for more of it.
    const kept = new Response(bytes, { headers });
    event.waitUntil(caches.open(SHELF).then((shelf) => shelf.put(place(page, mine.request.url), kept)).catch(() => {}));
    event.waitUntil(arrive(mine, page));
    return new Response(bytes, { status: response.status, headers });
  }
  if (response.body && isDownload(response)) {
    // Nothing overtakes a download: the page stays.
    forget(mine);
    return flow(response);
  }
  // A load that another one overtakes must leave something for it.
  const copy = response.clone();
  mine.found = Promise.resolve({ served: true, response: copy });
  event.waitUntil(arrive(mine, page).then(leave));
  return response.body ? flow(response) : response;
}

const isDownload = (response) => /^\s*attachment/i.test(response?.headers.get("Content-Disposition") || "");

/** The same response, whose worker stays until its body is out. */
function flow(response) {
  flowing += 1;
  const body = watched(response.body, () => {
    flowing -= 1;
    leave();
  });
  return new Response(body, { status: response.status, statusText: response.statusText, headers: plain(response.headers) });
}

/** Headers without those of an encoding that has been undone. */
function plain(all) {
  const headers = new Headers(all);
  if (headers.has("Content-Encoding")) {
    headers.delete("Content-Encoding");
    headers.delete("Content-Length");
  }
  return headers;
}

/** Lets go of the credential, and of what is kept for another load, once the page is there. */
async function arrive(mine, page) {
  await Promise.race([self.clients.get(page), pause(10000)]);
  if (mine.wanted !== page || !attempts.has(mine.request.key)) return;
  forget(mine);
  if (mine.kept) return;
  const { response } = await mine.found;
  response?.body?.cancel().catch(() => {});
}

/** Goes, if nothing is left to do. What is under way would break off with the worker. */
async function leave() {
  // What was just written is on its way out.
  await pause(2000);
  if (attempts.size === 0 && flowing === 0 && media.size === 0) await self.registration.unregister();
}

/** A body that says when it is over. */
function watched(body, over) {
  const reader = body.getReader();
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (!done) { controller.enqueue(value); return; }
        controller.close();
      } catch (error) {
        controller.error(error);
      }
      over();
    },
    cancel(why) {
      over();
      return reader.cancel(why);
    },
  });
}

/** A film or a sound for the page that shows it. */
async function play(page, url, request) {
  const shown = media.get(page) || await (async () => {
    const kept = await (await caches.open(SHELF)).match(place(page, url));
    return kept && { bytes: await kept.blob(), headers: kept.headers };
  })().catch(() => null);
  if (!shown) return fetch(request);
  media.set(page, shown);
  return slice(shown, request.headers.get("Range"));
}

const place = (page, url) => `/farebox-media/${page}?${encodeURIComponent(url)}`;

/** Lets go of films and sounds that nobody shows any more. */
async function sweep() {
  const pages = await self.clients.matchAll({ includeUncontrolled: true });
  const there = new Set(pages.map(({ id }) => id));
  for (const page of media.keys()) if (!there.has(page)) media.delete(page);
  const shelf = await caches.open(SHELF);
  for (const request of await shelf.keys()) {
    const page = new URL(request.url).pathname.split("/").pop();
    if (!there.has(page)) await shelf.delete(request);
  }
}

/** The part of a film that its player asks for. */
function slice({ bytes, headers: all }, range) {
  const headers = new Headers(all);
  headers.set("Accept-Ranges", "bytes");
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(range || "") || [];
  if (from === undefined) return new Response(bytes, { headers });
  const first = Number(from);
  const last = Math.min(to ? Number(to) : bytes.size - 1, bytes.size - 1);
  if (first > last) return new Response(null, { status: 416, headers: { "Content-Range": `bytes */${bytes.size}` } });
  headers.set("Content-Range", `bytes ${first}-${last}/${bytes.size}`);
  headers.set("Content-Length", String(last - first + 1));
  return new Response(bytes.slice(first, last + 1), { status: 206, headers });
}

/** Tells the payment page, whenever it is loaded next, that this payment has come to its end. */
async function mark(key) {
  const cache = await caches.open("farebox");
  await cache.put(`/farebox-done/${key}`, new Response(""));
}

function waiting() {
  const html = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width, initial-scale=1'>"
    + "<meta http-equiv=refresh content=3><title>Your payment is being confirmed</title>"
    + "<style>html{color-scheme:light dark;font:1rem/1.5 system-ui,sans-serif}body{max-width:27rem;margin:15vh auto;padding:1rem}</style>"
    + "<main><h1>Your payment is being confirmed</h1><p>It takes longer than usual. This page asks again, with the same payment, until the outcome is known. Do not pay again, and keep this page open.</p></main>";
  return new Response(html, {
    status: 503,
    headers: {
      "Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Retry-After": "3",
      "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    },
  });
}
