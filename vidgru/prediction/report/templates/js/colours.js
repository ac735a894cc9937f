// Colours of labels: Okabe and Ito's, made to be told apart by colour-blind people too, and one more; the yellow is
// darker, to be seen on white. With more labels they repeat: lanes and names tell those apart.

const PALETTE = ['#0f7fc4', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#8f7ee0', '#b5a300'];

function labelColour(label) {
  const known = data.labels.indexOf(label);
  if (known >= 0) return PALETTE[known % PALETTE.length];
  let sum = 0;
  for (const letter of label) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  return PALETTE[sum % PALETTE.length];
}

const themed = window.matchMedia('(prefers-color-scheme: dark)');

function themeColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
