// Replies of the admin API, as docs/reference/admin-api.md describes them. Only what the page shows is declared.

export interface Status {
  version: string;
  process: Process;
  configuration: Configuration;
  access_log: { dropped: number };
  log: { dropped: number };
  listeners: Listener[];
  pools: Pool[];
  jobs: Job[];
  upgrade?: { predecessor: { process: number; version: string; connections: number } | null };
  cluster?: Cluster | null;
}

export interface Process {
  id: number;
  ready: boolean;
  about_to_stop: boolean;
  started_at: string;
  uptime_seconds: number;
  open_fds: number | null;
  max_fds: number | null;
  connections: number;
  setup_connections: number;
  handshakes: number;
  waiting_handshakes: number;
  max_connections: number;
  relayed_sessions: number;
  buffered_bytes: number;
  anonymous_bytes: number | null;
  max_memory: number;
  short_of_memory: boolean;
}

export interface Configuration {
  file: string;
  reloads_ok: number;
  reloads_failed: number;
  last_reload_at: string | null;
  last_error: string | null;
  // Version of the text in force.
  number: number;
  hash: string;
  loaded_at: string;
}

export interface Listener {
  name: string;
  bind: string;
  protocol: string;
  state: string;
  live: number;
  accepted: number;
  requests: number;
  upgrades: number;
  handshake_failures: number;
  full_handshakes: number;
  resumed_handshakes: number;
  bytes_from_client: number;
  bytes_from_backend: number;
  refused: number;
  refusals: { reason: string; count: number }[];
  ends: { side: string; phase: string; how: string; count: number }[];
  certificates: Certificate[];
  certificate_error: string | null;
}

export interface Certificate {
  cert: string;
  name: string;
  not_after: string;
  days_left: number;
}

export interface Pool {
  name: string;
  balance: string;
  removed: boolean;
  queued: number;
  refused_no_backend: number;
  refused_full: number;
  refused_queue_full: number;
  queue_timeouts: number;
  retries: number;
  redispatches: number;
  panic: string | null;
  ended_by_health: number;
  discovery?: Discovery;
  failing_lookups: { name: string; error: string }[];
  file_errors: { kind: string; error: string }[];
  backends: Backend[];
}

export interface Discovery {
  source: string;
  state: string;
  age_seconds: number | null;
  revision: string;
  skipped: number;
  first_skipped: string | null;
  held: number | null;
  ready: number;
  drain: number;
  absent: number;
}

export interface Backend {
  pool: string;
  name: string;
  address: string;
  endpoint: string | null;
  state: string;
  reason: string;
  since: string;
  operator: string;
  discovery: string;
  check: string;
  check_reason: string;
  weight: number;
  backup: boolean;
  max_connections: number;
  removed: boolean;
  live: number;
  connections: number;
  connect_failures: number;
  requests: number;
  bytes_from_client: number;
  bytes_from_backend: number;
  checks_ok: number;
  checks_failed: number;
  state_changes: number;
  ejections: number;
  resumed: number;
  not_resumed: number;
  last_error: string | null;
  last_error_at: string | null;
}

export interface Job {
  id: number;
  by: string;
  target: string;
  phase: string;
  moves: boolean;
  ended: number;
  left: number;
  left_seconds: number | null;
  pace: string;
  code: number;
  started_at: string;
}

export interface Connection {
  id: number;
  listener: string;
  client: string;
  via: string | null;
  sni: string | null;
  host: string | null;
  path: string | null;
  tag: string | null;
  client_subject: string | null;
  pool: string | null;
  backend: string | null;
  tls: boolean;
  age_seconds: number;
  idle_seconds: number;
  bytes_from_client: number;
  bytes_from_backend: number;
}

export interface ConnectionPage {
  connections: Connection[];
  next: number | null;
  live: number;
  // Those that match, where `count` asks for it.
  matching?: number;
}

export interface Plan {
  totals: { changes: number; adds: number; removes: number; kept: number; closes: number; left_behind: number };
  needs_restart: string[];
  refusals: string[];
  parts: PlanPart[];
}

export interface PlanPart {
  part: string;
  name: string;
  fate: string;
  keys: string[];
  live: number | null;
  closes: number;
  left_behind: number;
}

export interface Cluster {
  name: string;
  id: string;
  store: string;
  // The store cannot be reached: this balancer goes on by itself.
  alone: boolean;
  age_seconds: number | null;
  exchanges: number;
  failures: number;
  last_error: string | null;
  rejected: number;
  same_id: boolean;
  share: string[];
  // The others.
  members: Member[];
  states: SharedState[];
}

export interface Member {
  id: string;
  age_seconds: number;
  connections: number;
  up_to_date: boolean;
}

export interface SharedState {
  pool: string;
  backend: string;
  state: string;
  by: string;
  revision: number;
}

// Conditions of a filter of connections, in the order in which the page asks for them.
export const CONDITIONS = ["pool", "backend", "listener", "client", "tag", "host", "path", "sni", "subject", "min_age", "min_idle"] as const;
export type Condition = (typeof CONDITIONS)[number];
export type Filter = Partial<Record<Condition, string>>;
