
"use strict";
// Draws the matrix of the element `data`. What comes from there is put on the page as text only, by `textContent`.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const isTwo = data.sets.length === 2;
  // So many parties are drawn without folds, and so many columns with words instead of signs.
  const FEW_PARTIES = 30, FEW_COLUMNS = 10, MOST_LISTED = 300;
  const OUTSIDE = "outside";
  const SIGN = {all: "●", some: "◐", nothing: "–", absent: "", opens: "+", closes: "−", both: "±", same: "·"};

  const element = (name, attributes = {}, ...content) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== false && value !== null) made.setAttribute(key, value);
    }
    made.append(...content.filter((part) => part !== null));
    return made;
  };

  // Parties by namespace, in their order.
  const spaces = new Map();
  data.parties.forEach((party, place) => {
    const space = party.namespace === null ? OUTSIDE : party.namespace;
    // A namespace may have that name too.
    const key = (party.namespace === null ? "1" : "0") + space;
    if (!spaces.has(key)) spaces.set(key, {key, label: space, places: []});
    spaces.get(key).places.push(place);
  });

  const isAskedOf = (place) => data.cells[place] !== undefined;
  const pairAt = (from, to) => {
    const row = data.cells[from];
    return row === undefined || row[to] < 0 ? null : data.pairs[row[to]];
  };
  const text = (place) => data.texts[place];
  const lastAnswer = (pair) => data.answers[pair.answers[pair.answers.length - 1]];
  const saidOf = (pair) => {
    if (!isTwo) return text(lastAnswer(pair).said);
    const parts = [];
    if (pair.opens !== null) parts.push("opens " + text(pair.opens));
    if (pair.closes !== null) parts.push("closes " + text(pair.closes));
    return parts.length > 0 ? parts.join("; ") : "the same: " + text(lastAnswer(pair).said);
  };
  const differs = (pair) => pair.opens !== null || pair.closes !== null;
  const kindOf = (pair) => {
    if (!isTwo) return lastAnswer(pair).kind;
    if (pair.opens !== null && pair.closes !== null) return "both";
    return pair.opens !== null ? "opens" : pair.closes !== null ? "closes" : "same";
  };

  // What is shown: folds, words that are searched for, which pairs, and the only workload, if it is one.
  const state = {folded: new Set(), from: "", to: "", which: "every", only: null};
  if (data.parties.length > FEW_PARTIES) for (const key of spaces.keys()) state.folded.add(key);
  if (isTwo) state.which = "differs";

  const isWanted = (pair) => {
    if (pair === null) return false;
    switch (state.which) {
      case "open": return lastAnswer(pair).kind === "all" || lastAnswer(pair).kind === "some";
      case "shut": return lastAnswer(pair).kind === "nothing";
      case "differs": return differs(pair);
      default: return true;
    }
  };
  const isFound = (place, words) => words === "" || data.parties[place].name.toLowerCase().includes(words);

  // The rows and columns that are left: those found by name, which have a pair that is wanted.
  const left = () => {
    const all = data.parties.map((_, place) => place);
    const from = all.filter((place) => isAskedOf(place) && isFound(place, state.from));
    const to = all.filter((place) => isFound(place, state.to));
    const hasTo = new Set();
    const rows = from.filter((client) => {
      let has = false;
      for (const server of to) {
        if (isWanted(pairAt(client, server))) { has = true; hasTo.add(server); }
      }
      return has;
    });
    return {rows, columns: to.filter((place) => hasTo.has(place))};
  };

  // Places as rows or columns: one of a folded namespace, else one each.
  const items = (places) => {
    const wanted = new Set(places);
    const found = [];
    for (const space of spaces.values()) {
      const own = space.places.filter((place) => wanted.has(place));
      if (own.length === 0) continue;
      if (state.folded.has(space.key)) found.push({space, places: own, isFold: true, count: 1});
      else own.forEach((place, index) => found.push({space, places: [place], isFold: false,
        count: index === 0 ? own.length : 0}));
    }
    return found;
  };

  const pairsOf = (row, column) => {
    const found = [];
    for (const from of row.places) {
      for (const to of column.places) {
        const pair = pairAt(from, to);
        if (pair !== null) found.push({from, to, pair});
      }
    }
    return found;
  };

  // What a cell shows of its pairs.
  const shown = (pairs) => {
    const wanted = pairs.filter(({pair}) => isWanted(pair));
    if (wanted.length === 0) return {kind: pairs.length === 0 ? "absent" : "same", said: "", sign: ""};
    const kinds = new Set(wanted.map(({pair}) => kindOf(pair)));
    const saids = new Set(wanted.map(({pair}) => saidOf(pair)));
    if (wanted.length === 1 || saids.size === 1) {
      const [kind] = kinds;
      return {kind, said: [...saids][0], sign: SIGN[kind]};
    }
    let kind = [...kinds][0];
    if (isTwo) {
      const opens = kinds.has("opens") || kinds.has("both"), closes = kinds.has("closes") || kinds.has("both");
      kind = opens && closes ? "both" : opens ? "opens" : closes ? "closes" : "same";
    } else if (kinds.size > 1) kind = "some";
    const few = wanted.filter(({pair}) => isTwo ? differs(pair) : lastAnswer(pair).kind !== "nothing").length;
    const said = `${few} of ${pairs.length} pairs ${isTwo ? "differ" : "have something open"}`;
    return {kind, said, sign: `${SIGN[kind]} ${few}/${pairs.length}`};
  };

  const pods = (party) => {
    const counts = party.pods;
    const count = counts[counts.length - 1] || counts[0];
    return count > 1 ? ` (${count} pods)` : "";
  };
  // Beside its namespace a party goes without that.
  const short = (party) => party.namespace === null ? party.name : party.name.replace(`/${party.namespace}/`, "/");
  const label = (item) => item.places.length === 1 ? short(data.parties[item.places[0]])
    : `${item.places.length} ${item.space.key.startsWith("0") ? "workloads" : "networks"}`;
  const title = (item) => item.places.length === 1 ? data.parties[item.places[0]].name
    : `${item.space.label}: ${label(item)}`;
  const change = (item) => item.isFold ? null : data.parties[item.places[0]].change;

  const table = element("table", {role: "grid", "aria-label": "Who may talk to whom"});
  const scroll = element("div", {class: "scroll"}, table);
  const answer = element("section", {id: "answer", hidden: true, tabindex: "-1", "aria-label": "Answer"});
  const status = element("p", {id: "status", class: "faint", role: "status"});
  const chip = element("span");

  const fold = (key) => {
    if (!state.folded.delete(key)) state.folded.add(key);
    draw();
  };
  const foldButton = (item) => element("button", {type: "button", "aria-expanded": String(!item.isFold),
    title: item.isFold ? "unfold" : "fold", onclick: () => fold(item.space.key)},
  (item.isFold ? "▸ " : "▾ ") + item.space.label);
  const nameButton = (item) => item.isFold
    ? element("button", {type: "button", title: "unfold", onclick: () => fold(item.space.key)}, label(item))
    : element("button", {type: "button", title: `only ${title(item)}`, onclick: () => focusOn(item.places[0])},
      label(item) + pods(data.parties[item.places[0]]) + (change(item) === null ? "" : ` (${change(item)})`));

  // The cells of the grid, for the keyboard.
  let grid = [];
  const draw = () => {
    chip.replaceChildren(...(state.only === null ? [] : [
      element("button", {type: "button", onclick: () => focusOn(null)},
        `only ${data.parties[state.only].name} ×`)]));
    table.replaceChildren();
    grid = [];
    if (state.only === null) drawMatrix(); else drawOne(state.only);
    if (grid.length > 0 && grid[0].length > 0) grid[0][0].tabIndex = 0;
    const head = table.tHead === null ? null : table.tHead.rows[0];
    if (head !== null) table.style.setProperty("--first-row", `${head.offsetHeight}px`);
  };

  const cell = (pairs, content, name) => {
    const {kind, said, sign} = content;
    const made = element("td", {class: kind, role: "gridcell", tabindex: "-1"});
    made.textContent = sign;
    made.pairs = pairs;
    made.said = `${name}: ${said === "" ? "nothing to show" : said}`;
    return made;
  };

  const drawMatrix = () => {
    const {rows, columns} = left();
    const [down, across] = [items(rows), items(columns)];
    status.textContent = down.length === 0 ? "Nothing is left by these filters." : "";
    if (down.length === 0) return;
    const first = element("tr", {}, element("th", {class: "corner", colspan: "2"}, "to →"));
    for (const item of across) {
      if (item.count > 0) first.append(element("th", {class: "space", colspan: String(item.count)}, foldButton(item)));
    }
    const second = element("tr", {}, element("th", {class: "corner", colspan: "2"}, "from ↓"));
    for (const item of across) second.append(element("th", {class: "name", scope: "col"}, nameButton(item)));
    table.append(element("thead", {}, first, second));
    const body = element("tbody");
    const hasWords = across.length <= FEW_COLUMNS;
    for (const row of down) {
      const line = element("tr");
      if (row.count > 0) line.append(element("th", {class: "space", rowspan: String(row.count)}, foldButton(row)));
      line.append(element("th", {class: "name", scope: "row"}, nameButton(row)));
      const cells = across.map((column) => {
        const pairs = pairsOf(row, column);
        const content = shown(pairs);
        const made = cell(pairs, content, `${title(row)} → ${title(column)}`);
        if (hasWords && content.sign !== "") {
          made.classList.add("wide");
          made.textContent = `${SIGN[content.kind]} ${content.said}`;
        }
        return made;
      });
      line.append(...cells);
      grid.push(cells);
      body.append(line);
    }
    table.append(body);
  };

  // One workload with everybody else: what it may send, and what it may be sent.
  const drawOne = (only) => {
    const name = data.parties[only].name;
    status.textContent = "";
    table.append(element("thead", {}, element("tr", {},
      element("th", {class: "corner", colspan: "2"}, "with"),
      element("th", {scope: "col"}, `from ${name}`),
      element("th", {scope: "col"}, `to ${name}`))));
    const body = element("tbody");
    const others = data.parties.map((_, place) => place).filter((place) => isFound(place, state.from) &&
      (isWanted(pairAt(only, place)) || isWanted(pairAt(place, only))));
    for (const space of spaces.values()) {
      const own = space.places.filter((place) => others.includes(place));
      own.forEach((place, index) => {
        const line = element("tr");
        if (index === 0) {
          line.append(element("th", {class: "space", rowspan: String(own.length)}, element("span", {}, space.label)));
        }
        line.append(element("th", {class: "name", scope: "row"}, element("button",
          {type: "button", onclick: () => focusOn(place)}, short(data.parties[place]) + pods(data.parties[place]))));
        const cells = [[only, place], [place, only]].map(([from, to]) => {
          const pair = pairAt(from, to);
          const pairs = pair === null ? [] : [{from, to, pair}];
          const content = shown(pairs);
          const made = cell(pairs, content, `${data.parties[from].name} → ${data.parties[to].name}`);
          made.classList.add("wide");
          made.textContent = content.sign === "" ? "" : `${content.sign} ${content.said}`;
          return made;
        });
        line.append(...cells);
        grid.push(cells);
        body.append(line);
      });
    }
    if (grid.length === 0) status.textContent = "Nothing is left by these filters.";
    table.append(body);
  };

  const focusOn = (place) => {
    state.only = place;
    for (const which of ["from", "to"]) state[which] = search(which).value = "";
    closeAnswer(false);
    draw();
    scroll.scrollTo(0, 0);
  };

  // The answer.
  let selected = null;
  const select = (made) => {
    if (selected !== null) selected.removeAttribute("aria-selected");
    selected = made;
    if (made !== null) made.setAttribute("aria-selected", "true");
  };
  const closeAnswer = (toCell) => {
    answer.hidden = true;
    if (toCell && selected !== null && selected.isConnected) selected.focus();
    select(null);
  };
  const closeButton = () =>
    element("button", {type: "button", class: "close", onclick: () => closeAnswer(true)}, "Close");

  const openCell = (made) => {
    if (made.pairs.length === 0) return;
    select(made);
    if (made.pairs.length === 1) openPair(made.pairs[0]); else openList(made);
    answer.hidden = false;
    answer.focus({preventScroll: true});
    answer.scrollTop = 0;
  };

  const openPair = ({from, to, pair}, back = null) => {
    const [client, server] = [data.parties[from], data.parties[to]];
    answer.className = isTwo ? "two" : "";
    answer.replaceChildren(closeButton(), element("h2", {}, `${client.name} → ${server.name}`));
    if (back !== null) answer.append(element("p", {}, element("button", {type: "button", onclick: back}, "Back")));
    if (isTwo) answer.append(element("p", {class: kindOf(pair)}, saidOf(pair)));
    const sets = element("div", {class: "sets"});
    pair.answers.forEach((place, index) => {
      const own = data.answers[place];
      const part = element("div", {});
      if (isTwo) part.append(element("h3", {}, data.sets[index]));
      part.append(element("p", {class: own.kind}, `${SIGN[own.kind]} ${text(own.said)}`));
      for (const reason of own.parts) {
        const family = reason.family === null ? "" : ` (${reason.family})`;
        const word = reason.allowed ? "allowed" : "refused";
        const list = element("dl", {class: word},
          element("dt", {}, `${text(reason.ports)}${family}: ${word}`));
        reason.sides.forEach((lines, side) => {
          const [of, party] = side === 0 ? ["egress of", client] : ["ingress of", server];
          lines.forEach((line, at) =>
            list.append(element("dd", {}, at === 0 ? `${of} ${party.name}: ${text(line)}` : text(line))));
        });
        list.append(element("dd", {},
          element("code", {}, `postern explain ${client.ask} ${server.ask} ${text(reason.asked)}`)));
        part.append(list);
      }
      sets.append(part);
    });
    answer.append(sets);
    const hasRefused = pair.answers.some((place) => data.answers[place].parts.some((reason) => !reason.allowed));
    if (!data.with_nearest && hasRefused) {
      answer.append(element("p", {class: "faint"},
        "There are too many pairs to hold the nearest rule of each; explain tells it, with the change that it takes."));
    }
  };

  const openList = (made) => {
    const wanted = made.pairs.filter(({pair}) => isWanted(pair));
    const back = () => openList(made);
    answer.className = "";
    answer.replaceChildren(closeButton(), element("h2", {}, made.said));
    const list = element("table");
    for (const entry of wanted.slice(0, MOST_LISTED)) {
      list.append(element("tr", {},
        element("td", {}, element("button", {type: "button", onclick: () => { openPair(entry, back); answer.focus({preventScroll: true}); }},
          `${data.parties[entry.from].name} → ${data.parties[entry.to].name}`)),
        element("td", {class: kindOf(entry.pair)}, saidOf(entry.pair))));
    }
    answer.append(list);
    if (wanted.length > MOST_LISTED) {
      answer.append(element("p", {class: "faint"}, `and ${wanted.length - MOST_LISTED} more: unfold the namespaces`));
    }
  };

  // Mouse and keyboard.
  table.addEventListener("click", (event) => {
    const made = event.target.closest("td");
    if (made !== null && made.pairs !== undefined) openCell(made);
  });
  table.addEventListener("mouseover", (event) => {
    const made = event.target.closest("td");
    if (made !== null && made.said !== undefined) {
      made.title = made.said;
      status.textContent = made.said;
    }
  });
  table.addEventListener("focusin", (event) => {
    const made = event.target.closest("td");
    if (made === null || made.said === undefined) return;
    made.setAttribute("aria-label", made.said);
    status.textContent = made.said;
  });
  table.addEventListener("keydown", (event) => {
    const made = event.target.closest("td");
    if (made === null || made.pairs === undefined) return;
    const row = grid.findIndex((cells) => cells.includes(made));
    const column = grid[row].indexOf(made);
    const to = {ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1], Home: [row, 0], End: [row, grid[row].length - 1],
      PageUp: [Math.max(row - 10, 0), column], PageDown: [Math.min(row + 10, grid.length - 1), column]}[event.key];
    if (event.key === "Enter" || event.key === " ") openCell(made);
    else if (to !== undefined) {
      const next = (grid[to[0]] || [])[to[1]];
      if (next !== undefined) {
        made.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
        next.scrollIntoView({block: "nearest", inline: "nearest"});
      }
    } else return;
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = ["INPUT", "SELECT"].includes(event.target.tagName);
    if (event.key === "Escape" && !answer.hidden) closeAnswer(true);
    else if (event.key === "Escape" && isTyping) event.target.blur();
    else if (event.key === "/" && !isTyping) {
      event.preventDefault();
      search("from").focus();
    }
  });

  const inputs = {};
  const search = (which) => inputs[which];
  const searchField = (which, name) => {
    inputs[which] = element("input", {type: "search", size: "18", oninput: (event) => {
      state[which] = event.target.value.trim().toLowerCase();
      unfoldFound();
      draw();
    }});
    return element("label", {}, name, inputs[which]);
  };
  // What is searched for is to be seen: it is in no fold, where it is little.
  const unfoldFound = () => {
    if (state.from === "" && state.to === "") return;
    const {rows, columns} = left();
    for (const [places, words] of [[rows, state.from], [columns, state.to]]) {
      if (words === "" || places.length > FEW_PARTIES) continue;
      for (const space of spaces.values()) {
        if (space.places.some((place) => places.includes(place))) state.folded.delete(space.key);
      }
    }
  };
  const choices = [["every", "every pair"], ["open", "with something open"], ["shut", "with nothing open"]]
    .concat(isTwo ? [["differs", "that differ"]] : []);
  const which = element("select", {onchange: (event) => { state.which = event.target.value; draw(); }},
    ...choices.map(([value, name]) => element("option", {value, selected: value === state.which}, name)));
  const all = (isFolded) => {
    state.folded = new Set(isFolded ? spaces.keys() : []);
    draw();
  };

  const inside = data.parties.filter((party) => party.namespace !== null).length;
  const spacesInside = [...spaces.keys()].filter((key) => key.startsWith("0")).length;
  let [count, special] = [0, 0];
  for (const row of Object.values(data.cells)) {
    for (const place of row) {
      if (place < 0) continue;
      count += 1;
      const pair = data.pairs[place];
      if (isTwo ? differs(pair) : lastAnswer(pair).kind !== "nothing") special += 1;
    }
  }
  const summary = `${inside} workloads in ${spacesInside} namespaces; ` +
    (isTwo ? `${special} of ${count} pairs differ` : `${special} of ${count} pairs have something open`);
  document.body.append(
    element("h1", {}, isTwo ? "What the policies change" : "Who may talk to whom"),
    element("p", {}, isTwo ? `${data.sets[0]} → ${data.sets[1]}: ${summary}` : `${data.sets[0]}: ${summary}`),
    ...data.notes.map((note) => element("p", {class: "faint"}, `Note: ${note}`)),
    element("p", {class: "legend faint"}, isTwo
      ? "+ opens, − closes, ± both, · the same"
      : "● all ports open, ◐ some, – none. A name shows this workload alone; a cell opens to the reasons."),
    element("div", {class: "controls", role: "search"},
      searchField("from", "from"), searchField("to", "to"), element("label", {}, "pairs", which),
      element("button", {type: "button", onclick: () => all(true)}, "Fold all"),
      element("button", {type: "button", onclick: () => all(false)}, "Unfold all"), chip,
      element("span", {class: "faint"}, "/ searches, arrows move, Enter opens, Escape closes")),
    status, element("main", {}, scroll, answer));
  draw();
})();
