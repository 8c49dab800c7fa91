// The answers of all cells to one example side by side.
const PER_PAGE = 12;
let questionPage = 0, foundQuestions = [];
const asked = { text: "", type: "", state: "", a: "", b: "" };

function buildQuestions() {
  const form = byId("question-form");
  form.addEventListener("submit", (event) => event.preventDefault());
  if (!DATA.questions.length) {
    byId("question-note").textContent = "No predictions are kept with these records.";
    for (const id of ["question-form", "question-back", "question-next", "question-count"]) byId(id).hidden = true;
    return;
  }
  const given = [...new Set(DATA.questions.flatMap((q) => q.p.flatMap((answer) => answer[2])))].sort((a, b) => a - b);
  const select = (key, words, options) => {
    const made = make("select", { id: `question-${key}` }, ...options);
    made.addEventListener("change", () => { asked[key] = made.value; findQuestions(); });
    form.append(make("label", {}, words, made));
  };
  const names = () => given.map((place) => option(String(place), DATA.cells[place].label));
  select("state", "Show", [option("", "all"), option("disagree", "cells disagree"), option("right", "right by all"), option("wrong", "wrong by all"), option("some", "right by some, wrong by others")]);
  const types = [...new Set(DATA.questions.map((q) => q.t).filter(Boolean))];
  if (types.length > 1) select("type", "Type", [option("", "all"), ...types.map((type) => option(type, type))]);
  if (given.length > 1) {
    select("a", "Correct in", [option("", "any cell"), ...names()]);
    select("b", "and wrong in", [option("", "any cell"), ...names()]);
  }
  const search = make("input", { type: "search", id: "question-text", autocomplete: "off" });
  search.addEventListener("input", () => { asked.text = search.value.trim().toLowerCase(); findQuestions(); });
  form.append(make("label", {}, "Words in question or answer", search));
  const turn = (by) => () => { questionPage += by; listQuestions(); byId("questions").scrollIntoView(); };
  byId("question-back").addEventListener("click", turn(-1));
  byId("question-next").addEventListener("click", turn(1));
  const cut = DATA.questions.length < DATA.asked.total ? `The first ${counted(DATA.questions.length, "example")} of ${DATA.asked.total.toLocaleString("en-US")} are kept here; the files of predictions have all.` : "";
  byId("question-note").textContent = [DATA.note, cut, ...DATA.asked.problems.slice(0, 3).map((problem) => `Not readable: ${problem}.`)].filter(Boolean).join(" ");
}

function wanted(question) {
  const right = question.p.some((answer) => answer[1]), wrong = question.p.some((answer) => !answer[1]);
  if (asked.state === "disagree" && question.p.length < 2) return false;
  if (asked.state === "right" && (wrong || !right)) return false;
  if (asked.state === "wrong" && (right || !wrong)) return false;
  if (asked.state === "some" && !(right && wrong)) return false;
  if (asked.type && question.t !== asked.type) return false;
  const by = (place, state) => question.p.some((answer) => answer[1] === state && answer[2].includes(Number(place)));
  if (asked.a && !by(asked.a, 1)) return false;
  if (asked.b && !by(asked.b, 0)) return false;
  return !asked.text || [question.q, question.a, question.id, ...question.p.map((answer) => answer[0])].some((text) => text.toLowerCase().includes(asked.text));
}

function findQuestions() {
  foundQuestions = DATA.questions.filter(wanted);
  questionPage = 0;
  listQuestions();
}

function listQuestions() {
  if (!DATA.questions.length) return;
  const start = questionPage * PER_PAGE, shown = foundQuestions.slice(start, start + PER_PAGE);
  byId("question-count").textContent = shown.length
    ? `${(start + 1).toLocaleString("en-US")} to ${start + shown.length} of ${counted(foundQuestions.length, "example")}.` : "No example agrees with all of this.";
  byId("question-back").disabled = !questionPage;
  byId("question-next").disabled = start + PER_PAGE >= foundQuestions.length;
  byId("question-list").replaceChildren(...shown.map(showQuestion));
}

function showQuestion(question) {
  const body = make("div", {},
    question.q ? make("p", {}, make("strong", {}, make("bdi", {}, question.q))) : null,
    make("p", {}, "Expected: ", make("bdi", { class: "label" }, question.a), question.t ? ` (${question.t})` : "", " · ", make("span", { class: "id" }, question.id)),
    ...[...question.p].sort((a, b) => b[2].length - a[2].length).map((answer) => showAnswer(answer, question.p)));
  if (question.i === undefined) return make("li", { class: "question plain" }, body);
  const image = make("img", { src: DATA.images[question.i], alt: `Image of example ${question.id}` });
  image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth <= 96));
  return make("li", { class: "question" }, image, body);
}

function showAnswer([text, right, cells, further], all) {
  const names = all.length === 1 && cells.length > 3 ? ["all that were asked"] : cells.flatMap((place, i) => [i ? ", " : "", `${DATA.cells[place].label} `, cellLink(place)]);
  return make("div", { class: right ? "answer right" : "answer" },
    make("span", { class: "mark" }, right ? "✓ right" : "✗ wrong"), " ", make("bdi", { class: "label" }, text || "(empty)"), further ? ` · ${further}` : "",
    make("div", { class: "cells" }, `${counted(cells.length, "cell")}: `, ...names));
}
