"use strict";
// One page, no library: reads the feed GET /events and draws it. Whatever is null is shown as a dash.
const $ = id => document.getElementById(id);
const PARTS = ["static", "prefill", "decode", "context", "unseparated"];
const ACCOUNTS = ["requests", "idle", "unattributed"];
const CLASS = { requests: "requests-j" };
const SPAN_MS = 5 * 60 * 1000;
const DASH = "–";
let points = []; // [unix ms, watts or null, in flight]
let cursor = null;

const escape = s => String(s ?? DASH).replace(/[&<>"]/g, c => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" }[c]));

function num(x, digits = 3) {
  if (x == null) return DASH;
  if (x === 0) return "0";
  if (Math.abs(x) >= 1e4) return Math.round(x).toLocaleString("en");
  return Number(x.toPrecision(Math.abs(x) >= 100 ? Math.max(digits, 4) : digits)).toString();
}

function joules(x) {
  if (x == null) return DASH;
  if (Math.abs(x) >= 3.6e6) return num(x / 3.6e6) + " kWh";
  return Math.abs(x) >= 1e4 ? num(x / 1e3) + " kJ" : num(x) + " J";
}

function bar(names, values, small) {
  const sum = values.reduce((a, v) => a + v, 0);
  if (!sum) return `<div class="bar${small ? " small" : ""}"></div>`;
  const cells = names.map((n, i) => `<i class="${CLASS[n] ?? n}" style="flex:${values[i] / sum}"></i>`);
  return `<div class="bar${small ? " small" : ""}">${cells.join("")}</div>`;
}

function keys(names, values) {
  const sum = values.reduce((a, v) => a + v, 0) || 1;
  return names.map((n, i) => `<span class="key"><i class="swatch ${CLASS[n] ?? n}"></i>${n} <b>${joules(values[i])}</b> ${num(100 * values[i] / sum, 2)} %</span>`).join("");
}

function tiles(s) {
  const watts = s.devices.reduce((a, d) => d.watts == null ? a : (a ?? 0) + d.watts, null);
  $("watts").textContent = watts == null ? "unknown" : num(watts);
  const ages = s.devices.map(d => d.sample_age_s).filter(a => a != null);
  $("watts-note").textContent = ages.length ? `read ${num(Math.max(...ages), 2)} s ago` : "no reading";
  const sum = key => s.summary.reduce((a, m) => a + m[key], 0);
  const [tokens, unknown, count, pending] = ["output_tokens", "unknown", "requests", "pending"].map(sum);
  const known = s.summary.filter(m => m.joules_per_output_token != null);
  const each = known.length === 1 ? known[0].joules_per_output_token : null;
  $("per-token").textContent = num(each);
  $("efficiency").textContent = each ? num(1 / each) : DASH;
  const note = known.length > 1 ? "by model, below" : `${count} requests, last minute`;
  $("per-token-note").textContent = unknown ? `${unknown} of ${count} requests unknown` : note;
  $("efficiency-note").textContent = `${num(tokens / s.window_s)} output tokens/s`;
  $("flight").textContent = Object.values(s.in_flight).reduce((a, v) => a + v, 0);
  $("flight-note").textContent = s.dropped ? `${s.dropped} events dropped` : `${num((count + pending) / s.window_s)} requests/s ended`;
  return watts;
}

function niceTop(value) {
  const step = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map(m => m * step).find(v => v >= value);
}

function path(values, x, y) {
  let d = "", pen = false;
  values.forEach(([t, v]) => { d += v == null ? "" : `${pen ? "L" : "M"}${x(t).toFixed(1)} ${y(v).toFixed(1)}`; pen = v != null; });
  return d;
}

function chart() {
  const svg = $("chart"), width = svg.clientWidth || 600, height = 200, left = 44, right = width - 30, bottom = height - 20;
  const now = points.length ? points[points.length - 1][0] : 0;
  const span = Math.min(Math.max(now - (points[0]?.[0] ?? now), 60000), SPAN_MS), from = now - span;
  const shown = points.filter(p => p[0] >= from);
  const top = niceTop(Math.max(...shown.map(p => p[1] ?? 0), 10)), most = 4 * Math.ceil(Math.max(...shown.map(p => p[2]), 1) / 4);
  const x = t => left + (right - left) * (t - from) / span;
  const y = v => bottom - (bottom - 8) * v / top, z = n => bottom - (bottom - 8) * n / most;
  let out = "";
  for (let i = 0; i <= 4; i++) {
    const h = bottom - (bottom - 8) * i / 4;
    out += `<line class="grid" x1="${left}" x2="${right}" y1="${h}" y2="${h}"/><text x="${left - 8}" y="${h + 4}" text-anchor="end">${num(top * i / 4)}</text><text x="${right + 6}" y="${h + 4}">${num(most * i / 4)}</text>`;
  }
  const minute = span > 150000 ? 60000 : 15000;
  for (let back = 0; back <= span; back += minute) {
    const label = back === 0 ? "now" : back % 60000 ? `-${back / 1000} s` : `-${back / 60000} min`;
    out += `<text x="${x(now - back)}" y="${height - 3}" text-anchor="${back ? "middle" : "end"}">${label}</text>`;
  }
  const watts = shown.map(p => [p[0], p[1]]), known = watts.filter(p => p[1] != null);
  if (known.length > 1 && known.length === watts.length) out += `<path class="area" d="${path(watts, x, y)}L${x(now)} ${bottom}L${x(watts[0][0])} ${bottom}Z"/>`;
  out += `<path class="flight" d="${path(shown.map(p => [p[0], p[2]]), x, z)}"/><path class="watts" d="${path(watts, x, y)}"/>`;
  if (cursor != null && shown.length) {
    const at = shown.reduce((a, p) => Math.abs(x(p[0]) - cursor) < Math.abs(x(a[0]) - cursor) ? p : a);
    out += `<line class="cursor" x1="${x(at[0])}" x2="${x(at[0])}" y1="8" y2="${bottom}"/>`;
    $("hover").textContent = `${new Date(at[0]).toLocaleTimeString()}: ${at[1] == null ? "unknown" : num(at[1]) + " W"}, ${at[2]} in flight`;
  } else $("hover").textContent = "";
  svg.innerHTML = out;
}

function device(d) {
  const gaps = d.gaps.length ? `<span class="key gap">${d.gaps.length} gap${d.gaps.length > 1 ? "s" : ""}: ${escape(d.gaps[d.gaps.length - 1].reason)}</span>` : "";
  const values = ACCOUNTS.map(n => d[n + "_joules"]);
  return `<div class="device"><strong>${escape(d.device)}</strong> <span class="dim">${escape(d.name)}</span>
    <div><b>${d.watts == null ? "unknown" : num(d.watts) + " W"}</b> <span class="dim">${joules(d.measured_joules)} measured${d.source ? " by " + escape(d.source) : ""}</span></div>
    ${bar(ACCOUNTS, values)}${keys(ACCOUNTS, values)}${gaps}</div>`;
}

function request(r) {
  const known = r.parts ? PARTS.filter(p => r.parts[p]) : [], values = known.map(p => r.parts[p]);
  const spent = r.joules == null ? `<span class="dim">${escape(r.unknown)}</span>` : num(r.joules) + (r.unknown ? ` <span class="gap" title="${escape(r.unknown)}">in part</span>` : r.final ? "" : ' <span class="dim">&hellip;</span>');
  const each = r.joules != null && !r.unknown && r.output_tokens ? num(r.joules / r.output_tokens) : DASH;
  const between = r.joules_low == null ? DASH : `${num(r.joules_low)} ${DASH} ${r.joules_high == null ? "?" : num(r.joules_high)}`;
  const name = r.request_id.length > 16 ? "…" + r.request_id.slice(-15) : r.request_id;
  const parts = r.parts ? `<span title="${known.map((p, i) => `${p} ${num(values[i])} J`).join(", ")}">${bar(known, values, true)}</span>` : DASH;
  return `<tr><td title="${escape(r.request_id)}"><code>${escape(name)}</code></td><td>${spent}</td><td class="dim">${between}</td><td>${each}</td><td>${parts}</td><td>${num(r.duration_s)}</td><td>${r.prompt_tokens ?? DASH}</td><td>${r.output_tokens ?? DASH}</td><td>${escape(r.model)}</td></tr>`;
}

function backend(b) {
  const worst = b.workers.find(w => w.reason) ?? b.workers[0];
  const why = worst?.reason ? ` <span class="dim">${escape(worst.reason)}, for ${num(worst.for_seconds)} s</span>` : "";
  const state = b.state == null ? DASH : b.state === "up" ? "up" : `<span class="gap">${escape(b.state)}</span>`;
  return `<tr><td title="${escape(b.url)}">${escape(b.name)}</td><td>${state}${why}</td><td>${b.workers.length ? b.outstanding : DASH}</td><td>${escape(b.devices.join(", ") || DASH)}</td><td>${escape(b.models.join(", ") || "any")}</td></tr>`;
}

function term(t) {
  // A term that is null was never seen, or this load does not tell it from the others: it is no finding.
  const seen = [
    [t.static_j, t.static_sd_j, 1, "J a step"],
    [t.decode_j, t.decode_sd_j, 1e3, "mJ a token"],
    [t.prefill_j, t.prefill_sd_j, 1e3, "mJ a prompt token"],
    [t.context_j, t.context_sd_j, 1e6, "µJ a context token"],
    [t.idle_w, t.idle_sd_w, 1, "W idle"],
  ].filter(([value]) => value != null).map(([value, sd, scale, unit]) => `${num(scale * value)} ± ${num(scale * sd)} ${unit}`);
  const unsure = t.unseparated.length ? ` Not told apart by this load: ${escape(t.unseparated.join(", "))}; their joules are unseparated.` : "";
  return `<p>Fitted on ${escape(t.group)}${t.prior ? " (little seen yet)" : ""}: ${seen.join(", ") || "nothing sure"}; R² ${num(t.r2)}.${unsure}</p>`;
}

const empty = (columns, text) => `<tr><td class="empty" colspan="${columns}">${text}</td></tr>`;

function show(s) {
  const estimate = !s.simulated && (s.source || "").includes("estimate");
  $("simulated").hidden = !s.simulated && !estimate;
  if (estimate) $("simulated").textContent = "ESTIMATE \u2014 these joules are not a measurement";
  $("where").textContent = s.source ? `source ${s.source} · policy ${s.policy}` : "no energy source: joules are unknown";
  const watts = tiles(s);
  const last = points.length ? points[points.length - 1][0] : 0;
  if (s.unix_ms - last >= 900) points.push([s.unix_ms, watts, Number($("flight").textContent)]);
  while (points.length && points[0][0] < s.unix_ms - SPAN_MS) points.shift();
  chart();
  const shown = s.parts && PARTS.filter(p => s.parts[p] != null && (s.parts[p] || p !== "unseparated")), parts = shown && shown.map(p => s.parts[p]);
  $("parts").innerHTML = parts ? bar(shown, parts) + keys(shown, parts) : '<span class="dim">not known: no request of the last minute has its parts (policy ' + escape(s.policy) + ")</span>";
  $("terms").innerHTML = s.terms.map(term).join("");
  $("devices").innerHTML = s.devices.map(device).join("") || '<span class="dim">no device is measured</span>';
  $("models").innerHTML = s.summary.map(m => `<tr><td>${escape(m.group)}</td><td>${m.requests}</td><td>${m.prompt_tokens ? num(m.prompt_tokens) : DASH}</td><td>${m.output_tokens ? num(m.output_tokens) : DASH}</td><td>${m.unknown === m.requests ? DASH : joules(m.joules)}${m.pending ? ` <span class="dim">+ ${m.pending} pending</span>` : ""}${m.unknown ? ` <span class="dim">(${m.unknown} unknown)</span>` : ""}</td><td>${num(m.joules_per_output_token)}</td></tr>`).join("") || empty(6, "no request ended in the last minute");
  $("backends").innerHTML = s.backends.map(backend).join("");
  $("requests").innerHTML = s.requests.map(request).join("") || empty(9, "no request yet: point a client at the data port");
}

// Request a path of the admin port with the token, if one was given. EventSource and links cannot send it.
function authorized(path) {
  const token = sessionStorage.getItem("token");
  return fetch(path, { headers: token ? { Authorization: "Bearer " + token } : {} });
}

// Open a link in a new tab from what fetch received. The tab is opened first: after a wait it would be a pop-up.
async function openWithToken(event) {
  if (!sessionStorage.getItem("token")) return;
  event.preventDefault();
  const tab = window.open("", "_blank");
  try {
    const answer = await authorized(event.currentTarget.href);
    if (!answer.ok) throw new Error("HTTP " + answer.status);
    const json = (answer.headers.get("Content-Type") || "").includes("json");
    const page = new Blob([await answer.text()], { type: json ? "application/json" : "text/plain;charset=utf-8" });
    (tab ?? window).location.href = URL.createObjectURL(page);
  } catch (error) {
    tab?.close();
    $("where").textContent = "cannot open " + event.target.textContent + ": " + error.message;
  }
}

async function follow() {
  const token = sessionStorage.getItem("token");
  const answer = await authorized("events");
  $("login").hidden = answer.status !== 401;
  if (answer.status === 401) { $("where").textContent = token ? "wrong token" : ""; sessionStorage.removeItem("token"); return false; }
  if (!answer.ok) throw new Error(answer.status);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = "";;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("ended");
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = JSON.parse(event.slice(event.indexOf("data: ") + 6));
      if (event.startsWith("event: history")) points = data; else show(data);
    }
    $("live").classList.add("on");
  }
}

async function keepFollowing() {
  for (;;) {
    try { if (!await follow()) return; } catch (error) {
      $("where").textContent = "connection lost, trying again …";
    }
    $("live").classList.remove("on");
    await new Promise(done => setTimeout(done, 1000));
  }
}

$("login").addEventListener("submit", event => { event.preventDefault(); sessionStorage.setItem("token", $("token").value); keepFollowing(); });
for (const link of document.querySelectorAll("footer a")) {
  link.addEventListener("click", openWithToken);
  link.addEventListener("auxclick", event => { if (event.button === 1) openWithToken(event); });
}
$("chart").addEventListener("mousemove", event => { cursor = event.offsetX; chart(); });
$("chart").addEventListener("mouseleave", () => { cursor = null; chart(); });
window.addEventListener("resize", chart);
keepFollowing();
