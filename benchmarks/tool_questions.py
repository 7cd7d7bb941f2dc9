"""Twelve tools, and fifty questions of which half need one of them; others are small talk, or questions near one."""

from dllm_plugins.tools.tool import Tool

#: Name, description, arguments.
_TOOLS = (
    ("exchange_rate", "Look up today's exchange rate between two currencies.", ("base", "target")),
    ("send_email", "Send an email to a person.", ("to", "subject", "body")),
    ("set_alarm", "Set an alarm that rings at a given time.", ("time",)),
    ("share_price", "Get the current price of a company's shares.", ("symbol",)),
    ("flight_status", "Check whether a flight is on time, delayed or cancelled.", ("flight",)),
    ("play_song", "Play a song on the speakers.", ("title",)),
    ("calculate", "Work out an arithmetic expression.", ("expression",)),
    ("list_appointments", "List the appointments in the user's calendar on a day.", ("date",)),
    ("find_route", "Find the way from one address to another.", ("origin", "destination")),
    ("read_file", "Return the contents of a file on this computer.", ("path",)),
    ("book_table", "Reserve a table in a restaurant.", ("restaurant", "people", "time")),
    ("switch_lights", "Turn the lights of a room on or off.", ("room", "on")),
)
TOOLS = {
    name: Tool(name, about, {"properties": {key: {"type": "string"} for key in keys}, "required": list(keys)})
    for name, about, keys in _TOOLS
}
#: By the tool that they need.
NEEDED: dict[str, tuple[str, ...]] = {
    "exchange_rate": (
        "How many yen do I get for one euro right now?",
        "What is the dollar worth in Swiss francs today?",
    ),
    "send_email": (
        "Write to anna@example.com that the meeting is moved to Friday.",
        "Let Tom know by mail that I will be late.",
    ),
    "set_alarm": ("Wake me up at half past six tomorrow.", "I need an alarm for 14:45."),
    "share_price": (
        "How much does a share of Siemens cost at the moment?",
        "What are Apple's shares trading at?",
    ),
    "flight_status": ("Is flight LH 440 on time?", "Has BA 117 been delayed?"),
    "play_song": ("Put on Yesterday by the Beatles.", "Play Bohemian Rhapsody, please."),
    "calculate": ("What is 4817 times 293?", "Divide 98765 by 43 for me.", "Compute (17 + 58) * 36."),
    "list_appointments": ("What do I have on my calendar next Tuesday?", "Am I free on the third of May?"),
    "find_route": (
        "How do I get from Mill Lane 12 to the central station?",
        "Show me the way from my hotel to the museum.",
    ),
    "read_file": ("What does notes.txt say?", "Open /etc/hosts and tell me what is in it."),
    "book_table": (
        "Get us a table for four at Luigi's tonight at eight.",
        "I would like to reserve dinner for two at the Golden Dragon on Saturday.",
    ),
    "switch_lights": (
        "Turn off the lamp in the bedroom.",
        "It is too dark in the kitchen, switch the light on.",
    ),
}
#: By a tool that is there all the same.
UNNEEDED: dict[str, tuple[str, ...]] = {
    "exchange_rate": ("What is an exchange rate?", "Why do countries have different currencies?"),
    "send_email": ("Who invented email?", "How should a polite letter begin?"),
    "set_alarm": ("Why do we sleep?", "What makes a good morning routine?"),
    "share_price": ("Explain what a share of a company is.", "Who was Isaac Newton?"),
    "flight_status": ("How do aeroplanes stay in the air?", "Write a short poem about the sea."),
    "play_song": ("Tell me about the life of Mozart.", "What is the difference between a verb and a noun?"),
    "calculate": ("Why is the sky blue?", "What is a prime number?"),
    "list_appointments": ("How are you today?", "How many days does a leap year have?"),
    "find_route": ("Thank you very much!", "Why is the Eiffel Tower famous?"),
    "read_file": ("Give me three ideas for a birthday present.", "What is a computer virus?"),
    "book_table": ("Good morning!", "How is bread made?"),
    "switch_lights": ("Hi there, who are you?", "How does a light bulb work?", "Tell me a joke."),
}
