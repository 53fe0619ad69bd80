"use strict";
// One card per photo. A guess is shown and counts for nothing until somebody confirms it.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { classes, columns, photos } = data;
  const few = classes.length <= 9;
  const labels = photos.map((photo) => photo.label);
  const cards = [];
  let saved = true;
  let typed = "";
  let typedAt = 0;

  const element = (tag, text, attributes = {}) => {
    const made = document.createElement(tag);
    made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  const spelled = (photo) => {
    const percent = photo.confidence === "" ? "" : ` (${Math.round(100 * photo.confidence)} %)`;
    return `guess: ${photo.guess}${percent}`;
  };

  const progress = () => {
    const done = labels.filter((label) => label !== "").length;
    document.getElementById("progress").textContent =
      `${done} of ${photos.length} labelled${saved ? "" : ", not saved yet"}`;
  };

  const show = (number) => {
    const card = cards[number];
    const label = labels[number];
    card.classList.toggle("done", label !== "");
    for (const button of card.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.name === label));
    }
    const select = card.querySelector("select");
    if (select) select.value = label !== photos[number].guess ? label : "";
    const said = label === "" ? "no label yet" : `label: ${label}`;
    card.querySelector(".label").textContent = said;
    const place = `Photo ${number + 1} of ${photos.length}`;
    card.setAttribute("aria-label", `${place}, ${spelled(photos[number])}, ${said}`);
  };

  const set = (number, label) => {
    labels[number] = label;
    saved = false;
    show(number);
    progress();
  };

  const go = (number) => {
    if (number < 0 || number >= cards.length) return;
    for (const card of cards) card.tabIndex = -1;
    cards[number].tabIndex = 0;
    cards[number].focus();
    typed = "";
  };

  const perRow = () => {
    const top = cards[0].offsetTop;
    const next = cards.findIndex((card) => card.offsetTop !== top);
    return next === -1 ? cards.length : next;
  };

  // What is typed within a second is the beginning of a class's name; one letter again, the next.
  const typeAhead = (number, key) => {
    const now = Date.now();
    typed = now - typedAt < 1000 ? typed + key.toLowerCase() : key.toLowerCase();
    typedAt = now;
    const begins = (text) => classes.filter((name) => name.toLowerCase().startsWith(text));
    let found = begins(typed)[0];
    if (found === undefined && new Set(typed).size === 1) {
      const same = begins(typed[0]);
      if (same.length) found = same[(same.indexOf(labels[number]) + 1) % same.length];
    }
    if (found !== undefined) set(number, found);
    else typed = "";
  };

  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const number = cards.indexOf(event.target.closest(".photo"));
    if (number < 0 || event.target.tagName === "SELECT") return;
    const { key } = event;
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perRow(), ArrowUp: -perRow() };
    const typing = typed !== "" && Date.now() - typedAt < 1000;
    if (key in moves) go(number + moves[key]);
    else if (key === "Home") go(0);
    else if (key === "End") go(cards.length - 1);
    else if (key === "Enter" && event.target === cards[number]) {
      if (labels[number] === "") set(number, photos[number].guess);
      go(number + 1);
    } else if (key === "Backspace" || key === "Delete") set(number, "");
    else if (few && /^[1-9]$/.test(key) && key <= classes.length) {
      set(number, classes[key - 1]);
      go(number + 1);
    } else if (key.length === 1 && (key !== " " || typing)) typeAhead(number, key);
    else return;
    event.preventDefault();
  };

  const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  const save = () => {
    const rows = photos.map((photo, number) => [
      photo.file, photo.guess, photo.confidence, labels[number],
    ]);
    const text = [columns, ...rows].map((row) => `${row.map(cell).join(",")}\n`).join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    link.download = data.save_as;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    saved = true;
    progress();
  };

  const choice = (number, name, text, isGuess) => {
    const button = element("button", text, { type: "button", tabindex: "-1" });
    button.dataset.name = name;
    if (isGuess) button.classList.add("guess");
    button.addEventListener("click", () => {
      set(number, labels[number] === name ? "" : name);
      go(number);
    });
    return button;
  };

  const card = (photo, number) => {
    const made = element("section", "", {
      class: "photo",
      tabindex: number === 0 ? "0" : "-1",
    });
    made.append(element("img", "", { src: photo.thumbnail, alt: photo.file }));
    made.append(element("p", photo.file, { class: "quiet" }), element("p", spelled(photo)));
    made.append(element("p", "", { class: "label" }));
    const choices = element("div", "", { class: "classes", role: "group", "aria-label": "Class" });
    if (few) {
      classes.forEach((name, at) => {
        choices.append(choice(number, name, `${at + 1} ${name}`, name === photo.guess));
      });
    } else {
      choices.append(choice(number, photo.guess, photo.guess, true));
      const select = element("select", "", { "aria-label": "Another class", tabindex: "-1" });
      select.append(element("option", "another class", { value: "" }));
      for (const name of classes) select.append(element("option", name, { value: name }));
      select.addEventListener("change", () => {
        set(number, select.value);
        go(number);
      });
      choices.append(select);
    }
    made.append(choices);
    return made;
  };

  document.getElementById("title").textContent = document.title;
  document.getElementById("help").textContent =
    "Click a class, or use the keys: arrows move, Enter takes the guess and goes on, " +
    (few ? "digits or the first letters set a class, " : "the first letters set a class, ") +
    `Backspace clears. Then save the CSV as ${data.save_as}, in place of the one beside this page.`;
  const main = document.getElementById("photos");
  photos.forEach((photo, number) => {
    cards.push(card(photo, number));
    main.append(cards[number]);
    show(number);
  });
  main.addEventListener("keydown", onKey);
  main.addEventListener("focusin", (event) => {
    const at = cards.indexOf(event.target);
    if (at >= 0) cards.forEach((one, number) => { one.tabIndex = number === at ? 0 : -1; });
  });
  document.getElementById("save").addEventListener("click", save);
  window.addEventListener("beforeunload", (event) => {
    if (!saved) event.preventDefault();
  });
  progress();
})();
