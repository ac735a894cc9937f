// The keyboard. In fields keys write; in dialogs they do what they do there.

function keysOf(page) {
  const step = (seconds) => page.player.seek(page.player.time + seconds);
  return {
    n: () => page.step(1),
    p: () => page.step(-1),
    ArrowDown: () => page.step(1),
    ArrowUp: () => page.step(-1),
    ' ': () => page.player.toggle(),
    ArrowLeft: (shift) => step(shift ? -10 : -1),
    ArrowRight: (shift) => step(shift ? 10 : 1),
    ',': () => step(-1 / data.fps),
    '.': () => step(1 / data.fps),
    e: () => page.edit(),
    m: () => page.selected !== null && page.store.toggleRight(page.selected),
    a: () => page.add(),
    u: () => page.undo(),
    Delete: () => page.remove(),
    Backspace: () => page.remove(),
    z: () => page.zoomToEvent(),
    '+': () => page.view.zoom(0.5, page.player.time),
    '=': () => page.view.zoom(0.5, page.player.time),
    '-': () => page.view.zoom(2, page.player.time),
    0: () => page.view.set(0, data.duration),
    '?': () => byId('help').showModal(),
    Escape: () => page.letGo(),
  };
}

function listenToKeys(page) {
  const keys = keysOf(page);
  document.addEventListener('keydown', (press) => {
    const command = press.ctrlKey || press.metaKey;
    if (document.querySelector('dialog[open]')) return;
    if (command && press.key === 's') {
      press.preventDefault();
      document.activeElement.blur(); // what is being written counts
      byId('save').click();
      return;
    }
    const writes = press.target.closest('input:not([type=checkbox], [type=range]), select, textarea');
    if (writes) {
      if (press.key === 'Escape') press.target.blur();
      return;
    }
    if (command && press.key === 'z') {
      press.preventDefault();
      page.undo();
      return;
    }
    const slides = press.target.matches('input[type=range]') && press.key.startsWith('Arrow');
    const pushes = press.key === ' ' && press.target.closest('button, input, summary, a');
    const act = keys[press.key];
    if (!act || command || press.altKey || slides || pushes) return;
    press.preventDefault();
    act(press.shiftKey);
  });
}
