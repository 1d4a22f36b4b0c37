// One presentation of a credential, and what it says: `served`, `refused`, or come again `after`
// so many seconds with the same credential.
async function attempt({ url, header, authorization, key }) {
  // A refusal as a problem, and the resource as a browser asks for it.
  const headers = {
    Accept: "application/problem+json, text/html;q=0.9, */*;q=0.8",
    "Idempotency-Key": `"${key}"`,
    [header]: authorization,
  };
  let response;
  try {
    response = await fetch(url, { headers, cache: "no-store", redirect: "manual" });
  } catch {
    return { after: 2 };
  }
  const { status } = response;
  if (response.type === "opaqueredirect" || (status >= 200 && status < 400)) return { served: true, response };
  const after = Number(response.headers.get("Retry-After")) || 1;
  const problem = (response.headers.get("Content-Type") || "").startsWith("application/problem+json")
    ? await response.json().catch(() => ({})) : {};
  // A refusal is the payment layer's. Anything else was said by whoever was to be paid for, or is an
  // outage; then the payment may be in, and the same credential collects it.
  const ours = String(problem.type || "").startsWith("https://paymentauth.org/problems/")
    || (problem.type === "about:blank" && (status >= 500 || [400, 413, 422, 429].includes(status)));
  if (ours && status < 500 && status !== 429) {
    return { refused: { detail: problem.detail, anew: status === 402 || status === 410 } };
  }
  return { after, failed: ours ? 0 : status };
}
