/** Sends a request with its credential. */
function send({ url, header, authorization, key }, redirect) {
  // A refusal as a problem, and the resource as a browser asks for it.
  const headers = {
    Accept: "application/problem+json, text/html;q=0.9, */*;q=0.8",
    "Idempotency-Key": `"${key}"`,
    [header]: authorization,
  };
  return fetch(url, { headers, cache: "no-store", redirect });
}

// One presentation of a credential, and what it says: `served`, `refused`, or come again `after`
// so many seconds with the same credential; `bare` if it would be served, but for a receipt. With
// `any` it need not have one.
async function attempt(request) {
  let response;
  try {
    response = await send(request, "manual");
  } catch {
    return { after: 2 };
  }
  const { status } = response;
  // What was paid for says so. Where a redirect leads cannot be seen.
  const receipt = request.any || response.headers.has("Payment-Receipt");
  if (response.type === "opaqueredirect" || (response.ok && receipt)) return { served: true, response };
  const after = Number(response.headers.get("Retry-After")) || 1;
  // A refusal is the payment layer's, and marked. Anything else was said by whoever was to be paid
  // for, or is an outage; then the payment may be in, and the same credential collects it.
  const ours = response.headers.get("Farebox-Page") === "refused";
  if (ours && status < 500 && status !== 429) {
    const problem = await response.json().catch(() => ({}));
    const late = /\/payment-expired$/.test(problem.type);
    return { refused: { detail: problem.detail, late, anew: status === 402 || status === 410 } };
  }
  response.body?.cancel().catch(() => {});
  return { after, failed: ours ? 0 : status, bare: response.ok };
}
