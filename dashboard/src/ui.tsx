// Parts of which all pages are made.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Refused } from "./client";

// A state by colour and by word.
export function State({ state, title }: { state: string; title?: string | undefined }): JSX.Element {
  return (
    <span class={`state s-${state.replaceAll(" ", "-")}`} title={title}>
      <i aria-hidden="true" />
      {state}
    </span>
  );
}

export function Figure(props: { label: string; value: ComponentChildren; note?: ComponentChildren; tone?: "bad" | "warn" | undefined }): JSX.Element {
  return (
    <div class={`figure ${props.tone ?? ""}`}>
      <dt>{props.label}</dt>
      <dd>
        <b>{props.value}</b>
        {props.note !== undefined && <span>{props.note}</span>}
      </dd>
    </div>
  );
}

export function Card(props: { title: ComponentChildren; side?: ComponentChildren; children: ComponentChildren; flush?: boolean }): JSX.Element {
  const id = useId();
  return (
    <section class={`card ${props.flush ? "flush" : ""}`} aria-labelledby={id}>
      <header>
        <h2 id={id}>{props.title}</h2>
        <div class="side">{props.side}</div>
      </header>
      {props.children}
    </section>
  );
}

// A bar with its part of the width filled.
export function Bar({ part, tone }: { part: number; tone?: string }): JSX.Element {
  return (
    <span class={`bar ${tone ?? ""}`} aria-hidden="true">
      <i style={{ width: `${(100 * Math.min(1, Math.max(0, part))).toFixed(1)}%` }} />
    </span>
  );
}

export function Empty({ children }: { children: ComponentChildren }): JSX.Element {
  return <p class="empty">{children}</p>;
}

export function Field(props: { label: string; hint?: ComponentChildren; children: (id: string) => ComponentChildren }): JSX.Element {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      {props.children(id)}
      {props.hint && <small>{props.hint}</small>}
    </div>
  );
}

export function Failure({ error }: { error: unknown }): JSX.Element | null {
  if (!error) return null;
  const message = error instanceof Error ? error.message : String(error);
  const reasons = error instanceof Refused ? error.reasons : [];
  const drawn = error instanceof Refused ? error.drawn : null;
  return (
    <div class="failure" role="alert">
      <p>{message}</p>
      {drawn ? <pre tabIndex={0}>{drawn}</pre> : reasons.length > 0 && <ul>{reasons.map((reason) => <li key={reason}>{reason}</li>)}</ul>}
    </div>
  );
}

// A question before a change: says what it touches, does it, and closes once that has succeeded.
export function Dialog(props: {
  title: string;
  act: string;
  danger?: boolean;
  disabled?: boolean;
  // `local`: on this balancer alone, as the store of the cluster does not have it.
  onAct: (local: boolean) => Promise<string>;
  children: ComponentChildren;
}): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const id = useId();
  useEffect(() => dialog.current?.showModal(), []);
  const act = async (local: boolean): Promise<void> => {
    setBusy(true);
    setError(null);
    try {
      say(await props.onAct(local));
      dialog.current?.close();
    } catch (failure) {
      setError(failure);
    } finally {
      setBusy(false);
    }
  };
  return (
    <dialog ref={dialog} aria-labelledby={id} onClose={() => ask(null)}>
      <form onSubmit={(event) => { event.preventDefault(); void act(false); }}>
        <h2 id={id}>{props.title}</h2>
        {props.children}
        <Failure error={error} />
        <footer>
          <button type="button" onClick={() => dialog.current?.close()}>Cancel</button>
          {error instanceof Refused && error.local && <button type="button" disabled={busy} onClick={() => void act(true)}>On this balancer alone</button>}
          <button class={props.danger ? "danger" : "primary"} disabled={busy || props.disabled}>{props.act}</button>
        </footer>
      </form>
    </dialog>
  );
}

let question: { node: JSX.Element; from: Element | null } | null = null;
let said: { text: string; number: number } | null = null;
let redrawHost = (): void => {};

// Shows a dialog, or takes it away and gives the focus back.
export function ask(node: JSX.Element | null): void {
  const from = question?.from;
  question = node && { node, from: document.activeElement };
  redrawHost();
  if (!node && from instanceof HTMLElement && from.isConnected) from.focus();
}

const SAID_MS = 6000;

// Says at the foot of the page what has happened.
export function say(text: string): void {
  const number = (said?.number ?? 0) + 1;
  said = { text, number };
  redrawHost();
  setTimeout(() => {
    if (said?.number !== number) return;
    said = null;
    redrawHost();
  }, SAID_MS);
}

// The place of dialogs and of what is said.
export function Host(): JSX.Element {
  const [, redraw] = useState(0);
  redrawHost = () => redraw((count) => count + 1);
  return (
    <>
      {question?.node}
      <div class="said" role="status">{said && <p>{said.text}</p>}</div>
    </>
  );
}

export interface Choice {
  label: string;
  act: () => void;
}

// A button that opens a list of actions.
export function Menu({ label, choices }: { label: string; choices: Choice[] }): JSX.Element {
  const [open, setOpen] = useState(false);
  const place = useRef<HTMLDivElement>(null);
  const id = useId();
  useEffect(() => {
    if (!open) return;
    const items = (): HTMLElement[] => [...(place.current?.querySelectorAll<HTMLElement>("[role=menuitem]") ?? [])];
    items()[0]?.focus();
    const away = (event: Event): void => {
      if (!place.current?.contains(event.target as Node)) setOpen(false);
    };
    const key = (event: KeyboardEvent): void => {
      const all = items();
      const at = all.indexOf(document.activeElement as HTMLElement);
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
      if (to !== undefined) {
        event.preventDefault();
        all.at(to % all.length)?.focus();
      }
      if (event.key === "Escape") {
        setOpen(false);
        place.current?.querySelector("button")?.focus();
      }
      if (event.key === "Tab") setOpen(false);
    };
    document.addEventListener("pointerdown", away);
    document.addEventListener("keydown", key);
    return () => {
      document.removeEventListener("pointerdown", away);
      document.removeEventListener("keydown", key);
    };
  }, [open]);
  const choose = (choice: Choice): void => {
    setOpen(false);
    place.current?.querySelector("button")?.focus();
    choice.act();
  };
  return (
    <div class="menu" ref={place}>
      <button type="button" class="quiet" aria-haspopup="menu" aria-expanded={open} aria-controls={id} aria-label={label} onClick={() => setOpen(!open)}>
        More
      </button>
      <div role="menu" id={id} aria-label={label} hidden={!open}>
        {choices.map((choice) => (
          <button key={choice.label} type="button" role="menuitem" tabIndex={-1} onClick={() => choose(choice)}>{choice.label}</button>
        ))}
      </div>
    </div>
  );
}
