// Light or dark: the system's choice, until the operator makes one. Nothing else is kept in the browser.

const KEY = "evenkeel-theme";
const CHOICES = ["auto", "light", "dark"] as const;
export type Theme = (typeof CHOICES)[number];

export function chosenTheme(): Theme {
  try {
    return CHOICES.find((choice) => choice === localStorage.getItem(KEY)) ?? "auto";
  } catch {
    return "auto";
  }
}

export function applyTheme(theme: Theme): void {
  if (theme === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
  dispatchEvent(new Event("theme"));
}

export function chooseTheme(theme: Theme): void {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // A browser that keeps nothing: the choice holds until the page is loaded again.
  }
  applyTheme(theme);
}

export function nextTheme(theme: Theme): Theme {
  return CHOICES[(CHOICES.indexOf(theme) + 1) % CHOICES.length] ?? "auto";
}
