"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const trace = JSON.parse(byId("trace").textContent);
  const STATES = ["open", "guess", "committed", "final", "fixed"];
  const SAID = ["open", "guessed", "settled, may change", "final", "fixed text"];
  // What a replay of any length takes at speed 1, and how long a pass is shown at least and at most; milliseconds.
  const WHOLE = 12000, SHORTEST = 60, LONGEST = 700;

  // Each frame says what differs from the one before: place, text, state, confidence in percent, pass, whether special.
  const frames = [[]];
  for (const [size, changes] of trace.frames) {
    const cells = frames[frames.length - 1].slice(0, size);
    for (const [place, text, state, confidence, settled, special] of changes) {
      cells[place] = { text: trace.texts[text], state, confidence, settled, special: special === 1 };
    }
    frames.push(cells);
  }
  const last = frames.length - 1;
  const isFixed = (cell) => cell.state === 4;
  // Of a template, its texts stand before the first pass.
  const isTemplate = last > 0 && frames[1].some(isFixed);
  if (isTemplate) {
    const open = { text: "", state: 0, confidence: null, settled: 0, special: false };
    frames[0] = frames[1].map((cell) => isFixed(cell) ? cell : open);
  }
  const settledBy = frames.map((cells, number) => cells.filter((cell) => number > 0 && cell.settled === number).length);

  const canvas = byId("canvas"), slider = byId("pass"), play = byId("play"), detail = byId("detail");
  const tokens = [], bars = [];
  let now = 0, chosen = -1, timer = 0;

  function shown(cell) {
    // What lays an answer out, such as a line break behind a row, stands at open positions, too.
    if (cell.state === 0) return "·" + cell.text;
    // A line feed must be seen as well as done; what adds no text of its own has a place all the same.
    return cell.text === "" ? "\u200b" : cell.text.replace(/\n/g, "↵\n");
  }

  function shade(cell) {
    if (byId("colour").value === "pass") {
      if (cell.settled === 0) return "";
      return mixed("--first", "--late", last > 1 ? (cell.settled - 1) / (last - 1) : 1);
    }
    return cell.confidence === null ? "" : mixed("--low", "--high", cell.confidence / 100);
  }

  function mixed(from, to, share) {
    const percent = Math.round(100 * share);
    return `color-mix(in oklab, var(${to}) ${percent}%, var(${from}))`;
  }

  function tell(cell, place) {
    const sure = cell.confidence === null ? "" : `, confidence ${cell.confidence} %`;
    const when = cell.settled === 0 ? "" : `, settled by pass ${cell.settled}`;
    const what = cell.state === 0 ? "" : ` ${JSON.stringify(cell.text)}`;
    return `${named(cell, place)}${what}: ${SAID[cell.state]}${when}${sure}`;
  }

  function named(cell, place) {
    if (isFixed(cell)) return "Text";
    const before = frames[now].slice(0, place), fixed = before.filter(isFixed).length;
    const gap = isTemplate ? `Gap ${fixed + (isFixed(frames[now][0]) ? 0 : 1)}, token` : "Token";
    return `${gap} ${place - before.findLastIndex(isFixed)}`;
  }

  function drawToken(element, cell) {
    const text = shown(cell), colour = shade(cell);
    if (element.textContent !== text) element.textContent = text;
    element.className = `token ${STATES[cell.state]}`;
    element.classList.toggle("new", now > 0 && cell.settled === now);
    element.classList.toggle("special", cell.special);
    if (colour) element.style.setProperty("--shade", colour);
    else element.removeAttribute("style");
  }

  function draw() {
    const cells = frames[now];
    while (tokens.length < cells.length) {
      const element = document.createElement("span");
      element.dataset.place = tokens.length;
      tokens.push(element);
    }
    cells.forEach((cell, place) => drawToken(tokens[place], cell));
    if (canvas.childElementCount !== cells.length) canvas.replaceChildren(...tokens.slice(0, cells.length));
    slider.value = now;
    const count = (state) => cells.filter((cell) => cell.state === state).length;
    byId("status").textContent = now === 0 ? `Before pass 1 of ${last}` :
      `Pass ${now} of ${last} · ${settledBy[now]} settled by it · ${count(1)} guessed · ${count(0)} open`;
    slider.setAttribute("aria-valuetext", byId("status").textContent);
    bars.forEach((bar, number) => bar.classList.toggle("now", number === now));
    choose(chosen < cells.length ? chosen : -1);
  }

  function choose(place) {
    chosen = place;
    const cells = frames[now];
    tokens.forEach((element, number) => element.classList.toggle("chosen", number === place));
    detail.textContent = place < 0 ? "" : tell(cells[place], place);
  }

  function go(pass) {
    now = Math.max(0, Math.min(last, pass));
    draw();
  }

  // What stands below the answer does not move while it grows.
  function reserve() {
    const shownNow = now;
    canvas.style.minHeight = "";
    go(last);
    canvas.style.minHeight = `${canvas.offsetHeight}px`;
    go(shownNow);
  }

  function pause() {
    clearTimeout(timer);
    timer = 0;
    play.textContent = "Play";
    byId("status").setAttribute("aria-live", "polite");
  }

  function wait() {
    const each = Math.max(SHORTEST, Math.min(LONGEST, WHOLE / Math.max(last, 1)));
    timer = setTimeout(() => {
      go(now + 1);
      if (now === last) pause();
      else wait();
    }, each / Number(byId("speed").value));
  }

  function toggle() {
    if (timer) return pause();
    if (now === last) go(0);
    play.textContent = "Pause";
    // Nobody can listen to a status that changes several times a second.
    byId("status").setAttribute("aria-live", "off");
    wait();
  }

  const moves = { ArrowLeft: () => go(now - 1), ArrowRight: () => go(now + 1), Home: () => go(0), End: () => go(last) };

  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.ctrlKey || event.altKey || event.metaKey || at instanceof HTMLSelectElement) return;
    const inAnswer = at === canvas && (event.key === "ArrowUp" || event.key === "ArrowDown") && frames[now].length > 0;
    if (event.key in moves) {
      pause();
      moves[event.key]();
    } else if (event.key === " " && !(at instanceof HTMLButtonElement)) {
      toggle();
    } else if (inAnswer) {
      const next = chosen + (event.key === "ArrowDown" ? 1 : -1);
      choose(Math.max(0, Math.min(frames[now].length - 1, next)));
    } else {
      return;
    }
    event.preventDefault();
  });

  const buttons = { first: "Home", back: "ArrowLeft", on: "ArrowRight", last: "End" };
  for (const [id, key] of Object.entries(buttons)) {
    byId(id).addEventListener("click", () => { pause(); moves[key](); });
  }
  play.addEventListener("click", toggle);
  slider.addEventListener("input", () => { pause(); go(Number(slider.value)); });
  byId("colour").addEventListener("change", () => { legend(); draw(); });
  addEventListener("resize", reserve);
  canvas.addEventListener("click", (event) => {
    const place = event.target.dataset.place;
    choose(place === undefined ? -1 : Number(place));
  });

  function legend() {
    const passes = byId("colour").value === "pass";
    byId("legend").classList.toggle("by-pass", passes);
    byId("low").textContent = passes ? "pass 1" : "unsure";
    byId("high").textContent = passes ? `pass ${last}` : "sure";
  }

  function fact(name, text) {
    const term = document.createElement("dt"), said = document.createElement("dd");
    term.textContent = name;
    said.textContent = text;
    byId("facts").append(term, said);
  }

  for (const [name, text] of trace.facts) fact(name, text);
  const most = Math.max(1, ...settledBy);
  settledBy.forEach((count, number) => {
    const bar = document.createElement("span");
    bar.style.height = `${Math.round(100 * count / most)}%`;
    if (number === 0) bar.hidden = true;
    bars.push(bar);
  });
  byId("bars").append(...bars);
  slider.max = last;
  byId("fixed").hidden = !isTemplate;
  legend();
  reserve();
  // A pass may be part of the address: page.html#12.
  go(/^#\d+$/.test(location.hash) ? Number(location.hash.slice(1)) : 0);
})();
