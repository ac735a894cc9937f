// Times as people read them. Seconds count from the start of the recording.

function formatTime(seconds, decimals = 1) {
  const unit = 10 ** decimals;
  const ticks = Math.round(seconds * unit);
  const whole = Math.floor(ticks / unit);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const two = (number) => String(number).padStart(2, '0');
  const fraction = decimals ? `.${String(ticks % unit).padStart(decimals, '0')}` : '';
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}${fraction}`;
}

function formatLength(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

// The recording's own clock; empty where it is not known.
function wallClock(recorded, seconds, parts = 'time') {
  if (!recorded) return '';
  const text = new Date(recorded.ms + Math.round(seconds * 1000)).toISOString();
  if (parts === 'minute') return `${text.slice(0, 10)} ${text.slice(11, 16)}`;
  if (parts === 'time') return text.slice(11, 19);
  const zone = recorded.zone ? ` ${recorded.zone.slice(0, 3)}:${recorded.zone.slice(3, 5)}` : '';
  return `${text.slice(0, 10)} ${text.slice(11, 19)}${zone}`;
}

// Steps of a time axis: about `most` of them over a stretch.
function axisStep(seconds, most) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  return steps.find((step) => seconds / step <= most) ?? steps.at(-1);
}
