// Requests to the admin API, and the session by which they are allowed.

import type { Condition, ConnectionPage, Filter } from "./api";

// An answer that is not a success. `drawn` has the errors of a configuration with carets.
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly reasons: string[] = [],
    readonly drawn: string | null = null,
    // The store of the cluster does not have it, and `?local=true` would do it on this balancer alone.
    readonly local = false,
  ) {
    super(message);
  }
}

export interface Session {
  // Whether the endpoint asks for a token, so that there is something to log out of.
  required: boolean;
  // Name of the token.
  name: string | null;
  role: "read" | "operate" | null;
  // The one backend that an `operate` token may act on, as POOL/BACKEND.
  backend: string | null;
  csrf: string | null;
}

let session: Session | null = null;
let onLogin = (): void => {};

export function currentSession(): Session | null {
  return session;
}

// Calls `needed` whenever an answer says that a login is needed.
export function whenLoginIsNeeded(needed: () => void): void {
  onLogin = needed;
}

// Asks whose the session is. False: there is none, and one is needed.
export async function readSession(): Promise<boolean> {
  session = await send<Session>("GET", "/login");
  return session.role !== null;
}

export async function logIn(token: string): Promise<void> {
  session = await send<Session>("POST", "/login", { token });
}

export async function logOut(): Promise<void> {
  await send("POST", "/logout", {});
  session = null;
}

export function mayAct(pool?: string, backend?: string): boolean {
  if (session?.role !== "operate") return false;
  return session.backend === null || (pool !== undefined && session.backend === `${pool}/${backend}`);
}

// Sends one request; the answer is JSON. Every change carries the CSRF value of the session.
export async function send<Reply>(method: string, path: string, body?: unknown): Promise<Reply> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (method !== "GET") headers["content-type"] = "application/json";
  if (method !== "GET" && session?.csrf) headers["x-csrf-token"] = session.csrf;
  const request: RequestInit = { method, headers, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) request.body = JSON.stringify(body);
  let answer: Response;
  try {
    answer = await fetch(path, request);
  } catch {
    throw new Refused(0, "the balancer does not answer");
  }
  const text = await answer.text();
  if (answer.ok) return (text ? JSON.parse(text) : null) as Reply;
  if (answer.status === 401 && path !== "/login") onLogin();
  throw refusal(answer.status, text);
}

function refusal(status: number, text: string): Refused {
  try {
    const { error, detail, errors, drawn, local } = JSON.parse(text) as Record<string, unknown>;
    const message = typeof error === "string" ? error : typeof detail === "string" ? detail : `status ${status}`;
    const reasons = Array.isArray(errors) ? errors.map(String) : [];
    return new Refused(status, message, reasons, typeof drawn === "string" ? drawn : null, local === true);
  } catch {
    return new Refused(status, text.trim() || `status ${status}`);
  }
}

export function backendPath(pool: string, backend: string): string {
  return `/api/v1/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}`;
}

export function conditions(filter: Filter): [Condition, string][] {
  return (Object.entries(filter) as [Condition, string][]).filter(([, value]) => value !== "");
}

export function connectionsPath(filter: Filter, more: Record<string, string> = {}): string {
  const query = new URLSearchParams([...conditions(filter), ...Object.entries(more)]);
  return `/api/v1/connections?${query.toString().replaceAll("+", "%20")}`;
}

// Counts the connections that a filter finds.
export async function countConnections(filter: Filter): Promise<number> {
  const { matching } = await send<ConnectionPage>("GET", connectionsPath(filter, { limit: "1", count: "true" }));
  return matching ?? 0;
}
