// The page: its frame, and which of its pages is shown.

import { Component, render, type ComponentChildren, type JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Status } from "./api";
import { currentSession, logIn, logOut } from "./client";
import { live, useLive } from "./live";
import { BackendsPage } from "./pages/backends";
import { ClusterPage } from "./pages/cluster";
import { ConfigurationPage } from "./pages/configuration";
import { ConnectionsPage } from "./pages/connections";
import { EventsPage } from "./pages/events";
import { JobsPage } from "./pages/jobs";
import { ListenersPage } from "./pages/listeners";
import { Overview, concerns } from "./pages/overview";
import { PoolPage } from "./pages/pool";
import { link, useRoute, type Route } from "./route";
import { applyTheme, chooseTheme, chosenTheme, nextTheme } from "./theme";
import { Empty, Failure, Field, Host, State } from "./ui";

const PAGES = ["overview", "backends", "connections", "listeners", "jobs", "cluster", "configuration", "events"];

function App(): JSX.Element {
  const { link: state, status } = useLive();
  const route = useRoute();
  useEffect(() => {
    document.title = status ? `${title(route)} · Evenkeel` : "Evenkeel";
  }, [route.page, route.name, status === null]);
  if (state === "login") return <><Login /><Host /></>;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>to the content</a>
      <Top route={route} status={status} />
      {state === "lost" && <p class="lost" role="alert">The balancer does not answer. What is shown is from before; asking again.</p>}
      <main id="main" tabIndex={-1}>{status ? <Guard key={route.page}><Page route={route} status={status} /></Guard> : <Waiting lost={state === "lost"} />}</main>
      <Host />
    </>
  );
}

function Waiting({ lost }: { lost: boolean }): JSX.Element {
  return <><h1 class="hidden">Evenkeel</h1><Empty>{lost ? "No answer yet." : "Asking the balancer."}</Empty></>;
}

function title({ page, name }: Route): string {
  return name || capital(page);
}

function capital(word: string): string {
  return word.slice(0, 1).toUpperCase() + word.slice(1);
}

// One page's fault stays its own.
class Guard extends Component<{ children?: ComponentChildren }, { error: unknown }> {
  override state = { error: null };

  static override getDerivedStateFromError(error: unknown): { error: unknown } {
    return { error };
  }

  render(): ComponentChildren {
    if (this.state.error === null) return this.props.children;
    return <><h1>This page has failed</h1><Failure error={this.state.error} /></>;
  }
}

function Page({ route, status }: { route: Route; status: Status }): JSX.Element {
  switch (route.page) {
    case "overview": return <Overview status={status} />;
    case "pools": return <PoolPage key={route.name} status={status} name={route.name} />;
    case "backends": return <BackendsPage status={status} />;
    case "connections": return <ConnectionsPage status={status} query={route.query} />;
    case "listeners": return <ListenersPage status={status} />;
    case "cluster": return <ClusterPage status={status} />;
    case "jobs": return <JobsPage status={status} />;
    case "configuration": return <ConfigurationPage status={status} />;
    case "events": return <EventsPage />;
    default: return <><h1>No such page</h1><Empty><a href={link("overview")}>Overview</a></Empty></>;
  }
}

function Top({ route, status }: { route: Route; status: Status | null }): JSX.Element {
  const counts: Record<string, number> = { overview: status ? concerns(status).length : 0, jobs: status?.jobs.length ?? 0 };
  const current = route.page === "pools" ? "overview" : route.page;
  const pages = PAGES.filter((page) => page !== "cluster" || status?.cluster);
  const nav = useRef<HTMLElement>(null);
  useEffect(() => nav.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" }), [current]);
  return (
    <header class="top">
      <a class="brand" href={link("overview")}><img src="/assets/icon.svg" alt="" width="24" height="24" /> Evenkeel</a>
      <nav aria-label="Pages" ref={nav}>
        {pages.map((page) => (
          <a key={page} href={link(page)} aria-current={page === current ? "page" : undefined}>
            {capital(page)}
            {counts[page] ? <span class="badge">{counts[page]}</span> : null}
          </a>
        ))}
      </nav>
      <div class="side"><LinkState /><ThemeButton /><LogOut /></div>
    </header>
  );
}

const LINKS: Record<string, string> = { live: "events as they happen", polling: "asks every second, as no events come", lost: "no answer", starting: "asking" };

function LinkState(): JSX.Element {
  return <span role="status"><State state={live.link} title={LINKS[live.link]} /></span>;
}

function ThemeButton(): JSX.Element {
  const [theme, setTheme] = useState(chosenTheme());
  const change = (): void => {
    const next = nextTheme(theme);
    chooseTheme(next);
    setTheme(next);
  };
  return <button type="button" class="quiet" title="Colours: as the system, light, dark" onClick={change}>Theme: {theme}</button>;
}

function LogOut(): JSX.Element | null {
  const session = currentSession();
  if (!session?.required) return null;
  return (
    <>
      <span class="role">{session.name}{session.role === "read" && ": read only"}</span>
      <button type="button" class="quiet" onClick={() => void logOut().finally(() => live.begin())}>Log out</button>
    </>
  );
}

function Login(): JSX.Element {
  const [token, setToken] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    try {
      await logIn(token);
      await live.begin();
    } catch (failure) {
      setToken("");
      setError(failure);
      setBusy(false);
    }
  };
  return (
    <main class="login">
      <form class="card" onSubmit={(event) => void submit(event)}>
        <h1><img src="/assets/icon.svg" alt="" width="32" height="32" /> Evenkeel</h1>
        <Field label="Token" hint="one of the tokens of [admin] in the configuration">
          {(id) => <input id={id} type="password" autocomplete="current-password" required autofocus value={token} onInput={(event) => setToken(event.currentTarget.value)} />}
        </Field>
        <Failure error={error} />
        <button class="primary" disabled={busy}>Log in</button>
      </form>
    </main>
  );
}

applyTheme(chosenTheme());
live.start();
const place = document.getElementById("app");
if (place) render(<App />, place);
