// The agent's API as the page uses it: every call bounded, errors as HTTPError.

import {HTTPError} from "./whip.js";

const callTime = 5_000; // ms
const key = "sfu-agent-token";

// A link may bring the token behind "#": that part is sent to no server.
const brought = new URLSearchParams(location.hash.slice(1)).get("token");
if (brought) {
  sessionStorage.setItem(key, brought);
  history.replaceState(null, "", location.pathname + location.search);
}

/** The token of this tab, "" for none. */
export const token = () => sessionStorage.getItem(key) ?? "";

export const setToken = (value) => sessionStorage.setItem(key, value);

/** Returns the decoded answer. */
export async function call(path, method = "GET") {
  const headers = token() ? {Authorization: `Bearer ${token()}`} : {};
  const response = await fetch(path, {method, headers, cache: "no-store", signal: AbortSignal.timeout(callTime)});
  if (!response.ok) throw await HTTPError.from(response);
  return response.json();
}

/** Calls fn each ms while the page is visible; fn's promise is waited for. */
export function whileVisible(ms, fn) {
  let timer = 0;
  let running = false;
  const turn = async () => {
    if (running || document.hidden) return;
    running = true;
    clearTimeout(timer);
    const since = performance.now();
    try {
      await fn();
    } finally {
      running = false;
      timer = setTimeout(turn, Math.max(0, ms - (performance.now() - since)));
    }
  };
  document.addEventListener("visibilitychange", turn);
  turn();
  return turn;
}
