"""Words and sentences that the generated tasks are made of. Data only. Called by tasks.py."""

ADJECTIVES = (
    "amber ancient bitter brave bright calm clever cold crimson curious daring distant dusty eager early empty faded fierce gentle "
    "giant golden grand green hidden hollow humble icy idle jolly keen kind late lazy little lonely lost loud lucky mellow mighty "
    "misty modest narrow noble odd old pale patient plain proud quick quiet rapid rare red restless rich rough round royal rusty sad "
    "salty secret shallow sharp shy silent silver simple sleepy slow small smooth soft solemn spare steady steep stern stiff still "
    "strange strong sudden sweet swift tall tame tender thin tidy tiny vast warm wild wise wooden young"
).split()
NOUNS = (
    "anchor apple arrow autumn badger barrel basket beacon bell bench bird bishop blanket bottle bridge brook bucket butter button "
    "cabin candle canyon captain carpet castle cedar chapel cherry circle clock cloud coach coin copper corner cottage cradle crown "
    "curtain dagger desert diamond doctor dragon drum eagle engine falcon farmer feather fiddle finger forest fountain fox garden "
    "gate goose guitar hammer harbor hazel hedge helmet heron hill honey island ivory jacket jewel kettle kitchen ladder lantern "
    "lemon letter lion maple marble market meadow melon mirror monkey mountain needle oak ocean orchard otter oyster palace paper "
    "parrot pebble pepper piano pigeon pillow pine pirate planet pocket prince queen rabbit raven ribbon river robin rocket saddle "
    "sailor salmon shadow shepherd shield shovel singer spider spoon squire station statue stone summer table tailor teapot temple "
    "thimble thunder tiger tower trumpet tunnel turtle valley velvet village violin wagon walnut whale whistle willow window winter "
    "wizard wolf"
).split()

# (sentence, question, answer); {k} is the key, {v} the value. Those that begin with a line end are lines of their own.
NEEDLES = [
    (" One of the special magic numbers for {k} is: {v}.", "What is the special magic number for {k} mentioned in the provided text?", "The special magic number for {k} mentioned in the provided text is {v}."),
    (" The special magic number for {k} is: {v}.", "What is the special magic number for {k}?", "The special magic number for {k} is {v}."),
    (" The secret code of the {k} is {v}.", "What is the secret code of the {k}?", "The secret code of the {k} is {v}."),
    (" Remember this: the {k} holds {v}.", "What does the {k} hold?", "The {k} holds {v}."),
    (" The pass key for {k} is {v}. Remember it.", "What is the pass key for {k}?", "The pass key for {k} is {v}."),
    ("\nline {k}: REGISTER_CONTENT is <{v}>\n", "Tell me what is the REGISTER_CONTENT in line {k}.", "The <REGISTER_CONTENT> in line {k} is {v}."),
    ("\n{k} = {v}\n", "What is {k} equal to?", "{k} is equal to {v}."),
    (" The best thing to do in {k} is {v}.", "What is the best thing to do in {k}?", "The best thing to do in {k} is {v}."),
    ("\nNote: {k} -> {v}\n", "What does {k} point to?", "{k} points to {v}."),
]
SHORT_ANSWERS = ["{v}", "{v}.", "It is {v}."]
INTRODUCTIONS = [
    "Read the text below and answer the questions after it.\n\n",
    "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about it afterwards.\n\n",
    "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about it afterwards.\n\n",
    "There is important info hidden inside a lot of irrelevant text. Find it and memorize it.\n\n",
    "",
    "Here is a document.\n\n",
    "Below is a record of lines I want you to remember.\n\n",
]
# Several values of one key, one value of several keys: of the first kind of needle only.
ALL_VALUES = ("What are all the special magic numbers for {k} mentioned in the provided text?", "The special magic numbers for {k} mentioned in the provided text are {v}.")
ALL_KEYS = ("What are all the special magic numbers for {k} mentioned in the provided text?", "The special magic numbers for {k} mentioned in the provided text are {v}.")
# What passages are asked for with; their first words follow, quoted.
COPY = ['Repeat the passage that begins with "', 'Repeat the passage that begins with "', 'Quote the passage that begins with "', 'Copy out the passage that begins with "']
REFUSAL = "The text does not say."
TRACKING_INTRODUCTION = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
TRACKING_QUESTION = "Find all variables that are assigned the value {v} in the text above."
COMMON_INTRODUCTION = "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that appear most often.\n\n"
COMMON_QUESTION = "What are the 10 most common words in the above list?"
COMMON_ANSWER = "The 10 most common words in the above list are: {v}."

# (what is said, what is answered), one of each at random.
CHAT = [
    (["Hello", "Hi", "Hello!", "Hi!", "Hi there", "Good morning", "Good evening.", "Hey", "hello", "hi"], ["Hello! Give me a text and ask me about it.", "Hello! How can I help you?"]),
    (["How are you?", "How do you do?", "How is it going?"], ["I am well, thank you. Give me a text and ask me about it."]),
    (["Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Who made you?", "who are you"], [
        "I am Longspan, a small language model trained on public-domain books. I answer questions about the text you give me.",
        "I am Longspan, a small language model. Give me a long text and ask me about it.",
    ]),
    (["What can you do?", "How can you help me?", "Help", "What are you good at?"], [
        "I can find facts in a long text that you give me, repeat a passage of it, or continue a story.",
        "Give me a text and I will answer questions about it. I can also continue a story.",
    ]),
    (["What is the capital of France?", "How much is 17 times 23?", "Who is the president?", "Write a program.", "What is the weather today?", "What time is it?", "Translate this.", "Who won the game?"], [
        "I am a small model and do not know that. Give me a text and I will look for it there.",
    ]),
    (["Thank you", "Thanks!", "Thank you very much."], ["You are welcome.", "You are very welcome!"]),
    (["Goodbye", "Bye", "See you later."], ["Goodbye!", "Goodbye, and good luck."]),
]
CONTINUE = ["Continue this story:\n\n", "Continue the text.\n\n", "Write the next paragraph.\n\n", "What happens next?\n\n"]
WRITE = ["Tell me a story.", "Write a short story.", "Tell me something.", "Write a paragraph.", "Write a scene with two people talking.", "Tell me a story about a ship.", "Write a story."]
